r"""
How do I solve a stiff equation written in torch?
=================================================

Some differential equations :math:`y' = f(y)` are stiff. The simplest method, :math:`y + h f(y)`, is then stable only
with tiny steps :math:`h`. An implicit method can take large steps. In each step it solves :math:`z = y + h f(z)` for
:math:`z` with Newton's method, and this needs the Jacobian of :math:`f`.

Suppose the unknowns are two substances on a grid of 48 by 48 points. These are 4608 unknowns, so the Jacobian has more
than 21 million entries. But each unknown depends only on its neighbours, so only six entries in each row differ from
zero. These are 27 648 entries in all. If SciPy knows where they are, it computes only these, and solves a sparse
system.

**Answer:** Pass the sparse Jacobian from :func:`funcdiff.jacobian_sparse` to SciPy's ``solve_ivp``, with one of its
implicit methods, ``"BDF"`` or ``"Radau"``. If every unknown depends on every other one, there is nothing to gain.

.. code-block:: python

    from funcdiff import jacobian_sparse
    from funcdiff.arrays import numpy_function  # NumPy arrays in and out
    from scipy.integrate import solve_ivp

    J = numpy_function(jacobian_sparse(rate, argnums=1))  # rate(t, y): argument 1 is y
    # For a few unknowns, a dense matrix: numpy_function(jacobian(rate, argnums=1))
    solve_ivp(numpy_function(rate), (0, 6), y0, method="BDF", jac=J)
"""

# %%
# Use it
# ------
# Our equation is the Brusselator: two substances :math:`u` and :math:`v` react and diffuse. :math:`\Delta` is the
# Laplacian, the sum of the second derivatives in space:
#
# .. math::
#
#    u_t = 1 + u^2 v - 4.4\,u + \alpha \Delta u, \qquad v_t = 3.4\,u - u^2 v + \alpha \Delta v.
#
# We compute both on a grid of N by N points whose opposite edges are joined. SciPy passes them as one vector of 2 N²
# numbers.

# sphinx_gallery_thumbnail_number = 2
import numpy as np
import torch
from scipy.integrate import solve_ivp

from funcdiff import explain, jacobian_pattern, jacobian_sparse
from funcdiff.arrays import numpy_function

alpha = 0.02


def laplacian(u):
    return u.roll(1, 0) + u.roll(-1, 0) + u.roll(1, 1) + u.roll(-1, 1) - 4 * u


def rate(t, y):
    """The time derivative of the state, (n,) -> (n,)."""
    side = int((len(y) // 2) ** 0.5)
    u, v = y.reshape(2, side, side)
    diffusion = alpha * side**2
    du = 1 + u * u * v - 4.4 * u + diffusion * laplacian(u)
    dv = 3.4 * u - u * u * v + diffusion * laplacian(v)
    return torch.stack([du, dv]).reshape(-1)


def start(side):
    """The first substance varies along one axis, the second along the other."""
    x = np.arange(side) / side
    hill = x * (1 - x) ** 1.5
    return np.concatenate([np.tile(22 * hill, side), np.repeat(27 * hill, side)])


# %%
# ``jacobian_sparse`` finds the pattern (the places of the entries) at its first call and keeps it. So we make this
# function once. ``numpy_function`` turns it into a function of NumPy arrays. It returns a sparse matrix of SciPy, and
# copies no numbers.

N = 48
fun = numpy_function(rate)
sparse_jacobian = jacobian_sparse(rate, argnums=1)
jac = numpy_function(sparse_jacobian)
times = np.linspace(0, 6, 13)
options = {"method": "BDF", "t_eval": times, "rtol": 1e-4, "atol": 1e-5}
solution = solve_ivp(fun, (0, 6), start(N), jac=jac, **options)
assert solution.success
counts = f"{solution.njev} Jacobians, {solution.nlu} factorizations"
print(f"{solution.nfev} evaluations, {counts}")

# %%
# The pictures show the first substance at four times. It starts as a ridge. Diffusion flattens the ridge, while the
# reaction goes on.

from funcdiff.plots import plot, plot_maps

shown = [0, 1, 2, 4]
frames = torch.from_numpy(solution.y[: N * N, shown].reshape(N, N, 2, 2))
axis = torch.arange(N, dtype=torch.float64) / N
plot_maps(
    (axis, axis),
    frames,
    panels=[f"t = {times[k]:g}" for k in shown],
    labels=("x", "y"),
    title="Diffusion flattens the first substance",
    signed=False,
)

# %%
# Check it by hand
# ----------------
# The Jacobian has four blocks. The reaction is local, so its derivatives are on the diagonal of each block. Diffusion
# adds :math:`L`, the matrix of the Laplacian on the grid, to two of the blocks:
#
# .. math::
#
#    J = \begin{pmatrix} 2uv - 4.4 + \alpha N^2 L & u^2 \\ 3.4 - 2uv & -u^2 + \alpha N^2 L \end{pmatrix}.

from scipy.sparse import block_array, diags_array, eye_array, kron


def by_hand(y):
    side = int((len(y) // 2) ** 0.5)
    offsets, weights = [1 - side, -1, 0, 1, side - 1], [1.0, 1.0, -2.0, 1.0, 1.0]
    ring = diags_array(weights, offsets=offsets, shape=(side, side))
    identity = eye_array(side)
    diffusion = alpha * side**2 * (kron(ring, identity) + kron(identity, ring))
    u, v = y.reshape(2, -1)
    to_u = [diags_array(2 * u * v - 4.4) + diffusion, diags_array(u * u)]
    to_v = [diags_array(3.4 - 2 * u * v), diags_array(-u * u) + diffusion]
    return block_array([to_u, to_v])


y = solution.y[:, 6]
matrix = jac(0.0, y)
np.testing.assert_allclose(matrix.toarray(), by_hand(y).toarray(), atol=1e-9)
matrix

# %%
# What does the solver do with this matrix? We write one implicit step ourselves. Newton's method for
# :math:`z = y + h f(z)` solves linear systems with the matrix :math:`I - hJ`.

from scipy.sparse.linalg import splu

h, z = 0.05, y.copy()
for _ in range(8):
    residual = z - y - h * fun(0.0, z)
    newton = splu((eye_array(len(y)) - h * jac(0.0, z)).tocsc())
    z -= newton.solve(residual)
assert np.abs(z - y - h * fun(0.0, z)).max() < 1e-9

# %%
# Count
# -----
# How many evaluations does one Jacobian cost? With finite differences, one for each of the 4608 unknowns. With
# ``jacobian_sparse``, columns without a common row share a pass, and twelve passes or fewer are enough
# (:doc:`/tutorials/sparse/passes`).

pattern = jacobian_pattern(rate, torch.tensor(0.0), torch.from_numpy(y), argnums=1)
assert pattern.passes <= 12 < pattern.shape[1]
explain(sparse_jacobian, torch.tensor(0.0), torch.from_numpy(y))

# %%
# Time
# ----
# We solve the problem on a smaller grid, and pass SciPy four different things. For ``pattern alone``, SciPy groups the
# columns itself and computes finite differences. It then solves sparse systems as well.

from funcdiff import jacobian, measure

y0 = start(18)
small = jacobian_pattern(rate, torch.tensor(0.0), torch.from_numpy(y0), argnums=1)
dense = numpy_function(jacobian(rate, 1))


def solve(**how):
    found = solve_ivp(fun, (0, 1), y0, **{**options, "t_eval": times[:3]}, **how)
    return torch.from_numpy(found.y)


ways = {
    "no Jacobian": solve,
    "dense Jacobian": lambda: solve(jac=dense),
    "pattern alone": lambda: solve(jac_sparsity=small.scipy()),
    "sparse Jacobian": lambda: solve(jac=jac),
}
solutions = {name: way() for name, way in ways.items()}
for found in solutions.values():
    torch.testing.assert_close(found, solutions["no Jacobian"], rtol=1e-6, atol=1e-6)

# %%
# All four solutions agree, so their times can be compared.

timing = measure.compare(ways, rounds=8, budget=3.0, equal=False)
timing

# %%
# Compare the sparse Jacobian with no Jacobian:

timing.claim("sparse Jacobian", faster_than="no Jacobian")

# %%
# Now with the pattern alone, where SciPy also solves sparse systems:

timing.claim("sparse Jacobian", faster_than="pattern alone")

# %%
# The figure shows all four. The two that know the pattern should be close to each other.

plot(timing, title="Knowing the pattern is what makes the solver fast")

# %%
# What goes wrong
# ---------------
# *You use an explicit method.* It needs far more steps to stay stable, although the solution is smooth.

explicit = solve_ivp(fun, (0, 6), start(N), method="RK45", rtol=1e-4, atol=1e-5)
print(f"RK45: {explicit.nfev} evaluations; BDF: {solution.nfev}")
assert explicit.nfev > 2 * solution.nfev

# %%
# *One term couples all unknowns.* Here the mean of all unknowns enters the rate, so the Jacobian is full. ``explain``
# says that there is nothing to save.


def coupled(t, y):
    return rate(t, y) - 0.1 * y.mean()


few = torch.from_numpy(start(8))
explanation = explain(jacobian_sparse(coupled, 1), torch.tensor(0.0), few)
assert explanation.recipe == "jacobian"
explanation

# %%
# *You call* ``jacobian_sparse`` *at each step.* It then searches for the pattern each time. Call it once, and keep the
# function that it returns.

point = (torch.tensor(0.0), torch.from_numpy(y0))
repeated = measure.compare(
    {
        "kept": lambda: sparse_jacobian(*point).to_dense(),
        "made anew": lambda: jacobian_sparse(rate, argnums=1)(*point).to_dense(),
    },
    rounds=10,
)
repeated.claim("kept", faster_than="made anew")

# %%
# Takeaway
# --------
# Write the right-hand side in torch, and give SciPy its sparse Jacobian. The cost of the derivative and of the linear
# systems then grows with the number of entries, and not with the square of the number of unknowns.
#
# * If you know only the pattern, pass it as ``jac_sparsity``: this gives most of the gain.
# * If every unknown depends on every other one, use a dense Jacobian, or an iterative solver with products.
# * If the equation is not stiff, an explicit method needs no Jacobian at all.
