r"""
How do I solve a stiff equation written in torch?
=================================================

A stiff equation :math:`y' = f(y)` forces an explicit method, such as :math:`y + h f(y)`, to take tiny steps :math:`h`.
An implicit method takes large steps. Each step solves :math:`z = y + h f(z)` for :math:`z`, with the Jacobian
:math:`J` of :math:`f`: Newton's method solves linear systems with the matrix :math:`I - hJ`.

On a grid each unknown depends on its neighbours only. With two substances on 48 by 48 points there are 4608 unknowns,
and :math:`J` has more than 21 million entries. Only six in each row differ from zero, 27 648 in all. If SciPy knows
this, it computes and solves with these alone.

**Answer:** Pass the sparse Jacobian from :func:`funcdiff.jacobian_sparse` to SciPy's ``solve_ivp``, with the method
``"BDF"`` or ``"Radau"``. If every unknown depends on every other one, there is nothing to gain.

.. code-block:: python

    from funcdiff import jacobian_sparse
    from funcdiff.arrays import numpy_function

    jacobian = numpy_function(jacobian_sparse(rate, argnums=1))  # of rate(t, y), for y
    solve_ivp(numpy_function(rate), span, y0, method="BDF", jac=jacobian)
"""

# %%
# Use it
# ------
# The Brusselator describes two substances :math:`u` and :math:`v` that react and diffuse. :math:`\Delta` is the
# Laplacian, the sum of the second derivatives in space:
#
# .. math::
#
#    u_t = 1 + u^2 v - 4.4\,u + \alpha \Delta u, \qquad v_t = 3.4\,u - u^2 v + \alpha \Delta v.
#
# We compute both on a periodic grid of N by N points. The solver sees one vector with 2 N² entries.

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
    """Both substances fall off towards two edges of the grid."""
    x = np.arange(side) / side
    hill = x * (1 - x) ** 1.5
    return np.concatenate([np.tile(22 * hill, side), np.repeat(27 * hill, side)])


# %%
# We make the transform once, because it finds the pattern at its first call and keeps it. ``numpy_function`` makes it a
# function of NumPy arrays that returns a matrix of SciPy. No numbers are copied.

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
# The film strip shows the first substance. Diffusion flattens the ridge that it starts with, while the reaction goes
# on.

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
# The Jacobian has four blocks. The derivatives of the reaction stand on their diagonals, and the matrix :math:`L` of
# the discrete Laplacian is added to two of them:
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
# An implicit step solves an equation, and Newton's method solves it with the same matrix. This is one step of the
# implicit Euler method, :math:`z = y + h f(z)`:

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
# How many passes does the matrix need? Differences would need an evaluation for each unknown. Twelve passes or fewer
# suffice here.

pattern = jacobian_pattern(rate, torch.tensor(0.0), torch.from_numpy(y), argnums=1)
assert pattern.passes <= 12 < pattern.shape[1]
explain(sparse_jacobian, torch.tensor(0.0), torch.from_numpy(y))

# %%
# Time
# ----
# We solve the same problem on a smaller grid by four methods. The third gives SciPy the pattern only. SciPy then groups
# the columns itself, takes differences, and uses a sparse factorization as well.

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
# The sparse Jacobian against none:

timing.claim("sparse Jacobian", faster_than="no Jacobian")

# %%
# And against the pattern alone, whose solver uses the same sparse factorizations:

timing.claim("sparse Jacobian", faster_than="pattern alone")

# %%
# The figure shows all four. The two that know the pattern should be close to each other.

plot(timing, title="Knowing the pattern is what makes the solver fast")

# %%
# What goes wrong
# ---------------
# **An explicit method.** It must evaluate the function far more often, for stability and not for accuracy.

explicit = solve_ivp(fun, (0, 6), start(N), method="RK45", rtol=1e-4, atol=1e-5)
print(f"RK45: {explicit.nfev} evaluations; BDF: {solution.nfev}")
assert explicit.nfev > 2 * solution.nfev

# %%
# **A term that couples everything.** If the total amount of a substance enters the rate, each row of the Jacobian is
# full. ``explain`` says that there is nothing to save.


def coupled(t, y):
    return rate(t, y) - 0.1 * y.mean()


few = torch.from_numpy(start(8))
told = explain(jacobian_sparse(coupled, 1), torch.tensor(0.0), few)
assert told.recipe == "jacobian"
told

# %%
# **A transform that is made anew.** Inside the function that the solver calls, it would search for the pattern at each
# call.

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
# Write the right-hand side in torch, and give SciPy its sparse Jacobian. Both the derivative and the factorization then
# follow the number of entries, not the square of the number of unknowns.
#
# * If only the pattern is at hand, pass it as ``jac_sparsity``: this gives most of the gain.
# * If every unknown depends on every other one, use a dense Jacobian, or an iterative solver with products.
# * If the equation is not stiff, an explicit method needs no Jacobian at all.
