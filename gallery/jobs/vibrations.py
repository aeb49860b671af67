r"""
How do I find the vibrations of a molecule from its energy?
===========================================================

The atoms of a molecule vibrate around the positions with the lowest energy: fast if a bond is stiff, and slowly if the
atoms are heavy. For one coordinate, the angular frequency is :math:`\omega = \sqrt{k / m}`. Here :math:`k` is the
second derivative of the energy and :math:`m` the mass. With :math:`k = 9` and :math:`m = 1` it is 3.

:math:`N` atoms have :math:`3N` coordinates. Their second derivatives form a matrix with :math:`3N` rows and columns,
the Hessian. Divide each entry by :math:`\sqrt{m_i m_j}`, where :math:`m_i` and :math:`m_j` are the masses of its two
atoms. The eigenvalues of this matrix are the squares :math:`\omega^2`.

**Answer:** Compute the Hessian with :func:`funcdiff.hessian`, which applies autograd twice here
(:func:`funcdiff.hessian_double_backward`). Divide by the masses and compute the eigenvalues. For many atoms, add
``chunk_size="auto", budget=2**30``: the columns are then computed in parts that fit in this many bytes.

.. code-block:: python

    import torch
    from funcdiff import hessian

    H = hessian(energy)(x).reshape(3 * N, 3 * N)  # x: positions (N, 3), in float64
    roots = masses.sqrt().repeat_interleave(3)  # one for each coordinate
    squares, modes = torch.linalg.eigh(H / roots.outer(roots))
    frequencies = squares[6:].sqrt()  # six are zero: the whole moves or turns
"""

# %%
# Use it
# ------
# We begin with three argon atoms. Each pair of atoms at the distance :math:`r` adds the Lennard-Jones energy
# :math:`V(r) = 4 (r^{-12} - r^{-6})`, which is lowest at :math:`r = 2^{1/6}`. So the best arrangement is a triangle
# with this side. We compute the Hessian there.

import torch

from funcdiff import hessian

torch.set_default_dtype(torch.float64)


def lennard_jones(atoms, device="cpu"):
    """The energy of this number of atoms, as a function of their positions (N, 3)."""
    i, j = torch.triu_indices(atoms, atoms, 1, device=device)  # all pairs

    def energy(x):
        sixth = (x[i] - x[j]).square().sum(1) ** -3  # r^-6
        return 4 * (sixth * sixth - sixth).sum()

    return energy


triangle = 2 ** (1 / 6) * torch.tensor([[0, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0]])
H = hessian(lennard_jones(3))(triangle)
print(tuple(H.shape))

# %%
# A second derivative belongs to two coordinates, and each coordinate has an atom and an axis. Hence the four indices:
# atom, axis, atom, axis. Next we make a matrix, divide by the masses, and compute the eigenvalues. An eigenvector is
# a mode: it says how the atoms move. In these units the mass of an argon atom is 1.


def vibrations(derivatives, masses):
    roots = masses.sqrt().repeat_interleave(3)  # one for each coordinate
    matrix = derivatives.reshape(len(roots), len(roots)) / roots.outer(roots)
    return torch.linalg.eigh(matrix)  # squares in ascending order, and their modes


squares, modes = vibrations(H, torch.ones(3))
print(f"six squares below {squares[:6].abs().max():.0e}, the others", squares[6:])

# %%
# Six squares are zero up to rounding, since the energy does not change if the molecule moves along an axis or turns.
# The others follow by hand. Each bond is a spring with the constant :math:`k = V''(2^{1/6}) = 72 / 2^{1/3}`. If all
# bonds stretch together, :math:`\omega^2 = 3k`. In the two other modes it is :math:`3k / 2`. We compare, and convert to
# wave numbers :math:`\omega / 2 \pi c` with the units of energy, length and mass for argon.

from scipy.constants import Boltzmann, atomic_mass, c, pi

k = 72 / 2 ** (1 / 3)
torch.testing.assert_close(squares, k * torch.tensor([0, 0, 0, 0, 0, 0, 1.5, 1.5, 3]))

depth, size, mass = 119.8 * Boltzmann, 3.405e-10, 39.948 * atomic_mass
unit = (depth / mass) ** 0.5 / size / (2 * pi * c) / 100  # 1/cm
print(*(f"{unit * square**0.5:.1f} per cm" for square in squares[6:]))

# %%
# A larger molecule
# -----------------
# The best known arrangement of 38 argon atoms is a piece of a cubic crystal. We take it from a grid. SciPy's L-BFGS
# then moves the atoms to the minimum, with the gradient from :func:`torch.func.grad_and_value`.

from scipy.optimize import minimize
from torch.func import grad, grad_and_value

grid = torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 3)
start = 0.78 * grid[(grid.sum(1) % 2 == 1) & (grid.square().sum(1) <= 5)]
N, masses = len(start), torch.ones(len(start))
energy = lennard_jones(N)


def value_and_slope(flat):
    slope, value = grad_and_value(energy)(torch.tensor(flat).reshape(N, 3))
    return value.item(), slope.flatten().numpy()


settings = {"jac": True, "method": "L-BFGS-B", "options": {"gtol": 1e-9, "ftol": 0.0}}
found = minimize(value_and_slope, start.flatten().numpy(), **settings)
x = torch.tensor(found.x).reshape(N, 3)
print(f"{N} atoms, energy {found.fun:.6f}, largest force {abs(found.jac).max():.0e}")
assert abs(found.fun + 173.928427) < 1e-6  # Wales and Doye (1997)

# %%
# The energy agrees with the published one. The Hessian now has 114 columns. By default they are computed all at once.
# With a budget in bytes, ``hessian`` computes as many at once as fit.

within = hessian(energy, chunk_size="auto", budget=2**22)
H = within(x)
squares, modes = vibrations(H, masses)
wave_numbers = unit * squares[6:].sqrt()
print(f"from {wave_numbers[0]:.1f} to {wave_numbers[-1]:.1f} per cm")
assert squares[:6].abs().max() < 1e-8 * squares[6]

# %%
# Again six squares are zero. The others are positive, so this is a minimum. We draw the slowest mode, and the mode that
# is most similar to uniform growth of the molecule.

from funcdiff.plots import plot_arrows

overlap = modes.T @ x.flatten() / x.norm()  # the center is at 0
most = int(overlap.abs().argmax())
breathing = (modes[:, most] * overlap[most].sign()).reshape(N, 3)  # a mode has no sign
shown = {
    f"slowest: {wave_numbers[0]:.1f} per cm": modes[:, 6].reshape(N, 3),
    f"breathing: {wave_numbers[most - 6]:.1f} per cm": breathing,
}
assert (x * breathing).sum(1).min() > -0.01  # outwards
title = f"{overlap[most] ** 2:.1%} of the breathing mode is uniform growth"
plot_arrows(x, shown, title=title)

# %%
# In the breathing mode, all atoms move outwards together, and half a period later inwards.
#
# Check it by hand
# ----------------
# The Hessian consists of blocks of 3 by 3 numbers, one for each two atoms. With :math:`d = x_i - x_j` and
# :math:`r = |d|`, the block for the atoms :math:`i` and :math:`j` is :math:`-K` with
#
# .. math::
#
#    K = V''(r) \frac{d d^T}{r^2} + \frac{V'(r)}{r} \left(1 - \frac{d d^T}{r^2}\right).
#
# The diagonal block of an atom is the sum of :math:`K` over all its pairs.


def by_hand(x):
    d = x[:, None] - x + torch.eye(N)[:, :, None]  # without distances of zero
    r = d.norm(dim=2)[:, :, None, None]
    along = d[:, :, :, None] * d[:, :, None, :] / r**2
    second, first = 4 * (156 / r**14 - 42 / r**8), 4 * (6 / r**7 - 12 / r**13)
    pairs = second * along + first / r * (torch.eye(3) - along)
    pairs[range(N), range(N)] = 0
    blocks = -pairs
    blocks[range(N), range(N)] = pairs.sum(1)
    return blocks.transpose(1, 2)  # atom, axis, atom, axis


torch.testing.assert_close(H, by_hand(x))

# %%
# A second check needs no second derivative: differences of the gradients at two nearby points, from 6 N evaluations.


def by_differences(x, step=1e-5):
    slope, shifts = grad(energy), step * torch.eye(3 * N).reshape(3 * N, N, 3)
    columns = [slope(x + shift) - slope(x - shift) for shift in shifts]
    return torch.stack(columns).reshape(N, 3, N, 3) / (2 * step)


differences, _ = vibrations(by_differences(x), masses)
gap = ((differences[6:] / squares[6:]).sqrt() - 1).abs().max()
print(f"frequencies: relative difference at most {gap:.0e}")
assert gap < 1e-6

# %%
# A third check has two masses: two atoms with the spring above have :math:`\omega^2 = k (1 / m_1 + 1 / m_2)`.

pair, _ = vibrations(hessian(lennard_jones(2))(triangle[:2]), torch.tensor([1.0, 3.0]))
torch.testing.assert_close(pair[-1].item(), k * (1 + 1 / 3))

# %%
# Count
# -----
# For each column, all :math:`N^2 / 2` pairs of atoms are in memory. With :math:`3N` columns at once, the memory grows
# with :math:`N^3`. We compare ``torch.func.hessian`` with a budget of ``2**26`` bytes. On the :term:`meta device`,
# tensors have no values, so nothing is computed.

from funcdiff.measure import compare, count

peaks = []
for atoms in (38, 76, 152):
    larger = lennard_jones(atoms, device="meta")
    candidates = {
        "torch.func.hessian": torch.func.hessian(larger),
        "hessian, budget": hessian(larger, chunk_size="auto", budget=2**26),
    }
    costs = count(candidates, torch.empty(atoms, 3, device="meta"))
    peaks.append([cost.peak_bytes for cost in costs.values()])
    print(f"{atoms:3} atoms: {peaks[-1][0]:,} bytes, {peaks[-1][1]:,} with the budget")

# %%
# Twice as many atoms need about eight times the memory, until the budget limits it. For 152 atoms:

assert 7 < peaks[2][0] / peaks[1][0] < 9
assert max(small for _, small in peaks) <= 2**26
costs.claim("hessian, budget", smaller_peak_than="torch.func.hessian", by=5)

# %%
# Time
# ----
# We time five methods for the Hessian of the 38 atoms, and count what each call needs.

ways = {
    "hessian": hessian(energy),
    "hessian, budget": within,
    "torch.func.hessian": torch.func.hessian(energy),
    "autograd.functional": lambda x: torch.autograd.functional.hessian(energy, x),
    "differences": by_differences,
}
times = compare(ways, x, rounds=8, budget=1, costs=True)
times

# %%
# The fastest method comes first, and the :term:`ratio` compares the others with it. The energy has no matrix products,
# hence 0 FLOP. ``torch.autograd.functional`` computes one column at a time, so its :term:`peak` is low. Is it slower?

times.claim("hessian, budget", faster_than="autograd.functional")

# %%
# Does the small budget cost time, compared with all columns at once?

times.claim("hessian", faster_than="hessian, budget")

# %%
# What goes wrong
# ---------------
# *The atoms are not at a minimum.* A straight step along a rotation then changes the energy: its square is not zero.

near_zero = vibrations(hessian(energy)(start), masses)[0].abs().sort()[0][:6]
print("six nearest to zero:", *(f"{value:.1e}" for value in near_zero))
assert near_zero.max() > 1e-3 * squares[6], "update this section"

# %%
# *A custom kernel has no second derivative.* Fast kernels compute the gradient together with the energy, and keep it
# for the backward pass. For torch this gradient is a constant, so every second derivative is zero.

from textwrap import fill


class Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, grad(energy)(x))  # stands for compiled code
        return energy(x)

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[1]


zeros = torch.autograd.functional.hessian(Kernel.apply, x)
assert not zeros.any(), "torch detects it: update this section"
try:
    hessian(Kernel.apply)(x)
except RuntimeError as error:
    print(fill(f"RuntimeError: {error}", 88))

# %%
# ``torch.autograd.functional`` returned zeros. ``hessian`` raises an error: finite differences contradict zeros, "1
# apart" (100 %). Torch runs each ``forward`` under ``torch.no_grad()``, which the message mentions. Write
# the backward pass with torch's operations, as here.


class Repaired(Kernel):
    @staticmethod
    def backward(ctx, u):
        return u * grad(energy)(ctx.saved_tensors[0])


torch.testing.assert_close(hessian(Repaired.apply)(x), H)

# %%
# Takeaway
# --------
# Optimize the positions, and check that six squares of the Hessian in float64 are zero (five for atoms on a line).
#
# * If the code of your forces cannot be changed, take differences of forces: they need 6 N evaluations.
# * If you need only a few modes, use products (:doc:`/tutorials/uses/curvature_spectrum`).
# * If distant atoms do not interact, most of the Hessian is zero: see :doc:`/tutorials/sparse/passes`.
