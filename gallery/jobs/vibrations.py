r"""
How do I find the vibrations of a molecule from its energy?
===========================================================

The atoms of a molecule vibrate around the positions with the lowest energy. How fast depends on how steeply the energy
rises when they move, which is the Hessian of the energy. For one coordinate with the second derivative 9 and the mass
1, the angular frequency is :math:`\sqrt{9 / 1} = 3`. For :math:`N` atoms the Hessian has :math:`3N` rows and columns.

Its computation can need far more memory than the matrix. An energy of pairs has :math:`N^2 / 2` terms, and
``torch.func.hessian`` computes all :math:`3 N` columns at once. So its memory grows with :math:`N^3`.

**Answer:** Compute the Hessian within a memory budget, and divide each entry by the square roots of its two masses. The
eigenvalues are the squares of the angular frequencies. ``hessian`` chooses two backward passes here
(:func:`funcdiff.hessian_double_backward`), and the largest chunk of columns that fits.

.. code-block:: python

    from funcdiff import hessian

    H = hessian(energy, chunk_size="auto", budget=2**30)(x)  # x: (N, 3), in float64
    roots = masses.sqrt().repeat_interleave(3)
    squares, modes = torch.linalg.eigh(H.reshape(3 * N, 3 * N) / roots.outer(roots))
"""

# %%
# Use it
# ------
# Our molecule is a cluster of 38 argon atoms. Each pair of atoms at the distance :math:`r` adds the Lennard-Jones
# energy :math:`V(r) = 4 (r^{-12} - r^{-6})`. In these units the mass of an atom is 1.

from textwrap import fill

import numpy as np
import torch
from scipy.optimize import minimize
from torch.func import grad, grad_and_value

from funcdiff import explain, hessian

torch.set_default_dtype(torch.float64)


def lennard_jones(atoms, device="cpu"):
    """The energy of this number of atoms, as a function of their positions (N, 3)."""
    i, j = torch.triu_indices(atoms, atoms, 1, device=device)

    def energy(x):
        inverse = (x[i] - x[j]).square().sum(1) ** -3
        return 4 * (inverse * inverse - inverse).sum()

    return energy


# %%
# First we need the positions with the lowest energy. The best known arrangement is a piece of a cubic crystal. We take
# it from a grid, and SciPy's L-BFGS moves the atoms to the minimum with forces from :func:`torch.func.grad`.

grid = torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 3)
start = 0.78 * grid[(grid.sum(1) % 2 == 1) & (grid.square().sum(1) <= 5)]
N, masses = len(start), torch.ones(len(start))
energy = lennard_jones(N)


def value_and_slope(flat):
    slope, value = grad_and_value(energy)(torch.tensor(flat).reshape(N, 3))
    return value.item(), slope.flatten().numpy()


settings = {"method": "L-BFGS-B", "options": {"gtol": 1e-9, "ftol": 0.0}}
found = minimize(value_and_slope, start.flatten().numpy(), jac=True, **settings)
x = torch.tensor(found.x).reshape(N, 3)
print(f"{N} atoms, energy {found.fun:.6f}, largest force {abs(found.jac).max():.0e}")
assert abs(found.fun + 173.928427) < 1e-6  # Wales and Doye (1997)

# %%
# The energy agrees with the published one. The table shows the recipe for a budget of ``2**22`` bytes, the number of
# columns at once, and the counted peak of memory.

within = hessian(energy, chunk_size="auto", budget=2**22)
H = within(x).reshape(3 * N, 3 * N)
explain(within, x)

# %%
# Next we divide by the masses. The eigenvalues are the squares :math:`\omega^2`, and each eigenvector is a mode: it
# says how the atoms move.


def vibrations(matrix, masses):
    roots = masses.sqrt().repeat_interleave(3)
    return torch.linalg.eigh(matrix / roots.outer(roots))


squares, modes = vibrations(H, masses)
print("seven smallest squares:", *(f"{value:.1e}" for value in squares[:7]))
assert squares[:6].abs().max() < 1e-8 * squares[6]

# %%
# Six squares are zero up to rounding, because the energy does not change if the whole cluster moves or turns. The
# others are positive, so this is a minimum. For argon we convert the frequencies to wave numbers.

from scipy.constants import atomic_mass, c, k

depth, size, mass = 119.8 * k, 3.405e-10, 39.948 * atomic_mass
unit = np.sqrt(depth / mass) / size / (2 * np.pi * c) / 100  # 1/cm
wave_numbers = unit * squares[6:].sqrt()
levels, copies = wave_numbers.round(decimals=6).unique(return_counts=True)
print(f"{len(levels)} frequencies, from {levels[0]:.1f} to {levels[-1]:.1f} per cm")
assert copies.max() == 3

# %%
# No frequency belongs to more than three modes, as the symmetry of a cube requires. We draw the slowest mode, and the
# mode that is most similar to uniform growth of the cluster.

from funcdiff.plots import plot_arrows

growth = (x - x.mean(0)).flatten()
overlap = modes.T @ growth / growth.norm()
most = int(overlap.abs().argmax())
breathing = modes[:, most] * overlap[most].sign()  # the sign of a mode is arbitrary
shown = {
    f"slowest: {wave_numbers[0]:.1f} per cm": modes[:, 6].reshape(N, 3),
    f"breathing: {wave_numbers[most - 6]:.1f} per cm": breathing.reshape(N, 3),
}
assert (x * breathing.reshape(N, 3)).sum(1).min() > -0.01  # outwards
assert overlap[6].abs() < 1e-6
plot_arrows(
    x, shown, title=f"The breathing mode is uniform growth to {overlap[most] ** 2:.1%}"
)

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
    return blocks.transpose(1, 2).reshape(3 * N, 3 * N)


torch.testing.assert_close(H, by_hand(x))

# %%
# A second check needs no second derivative: differences of the forces at two nearby points, from 6 N evaluations.


def by_differences(x, step=1e-5):
    forces, columns = grad(energy), []
    for shift in step * torch.eye(3 * N).reshape(3 * N, N, 3):
        columns.append((forces(x + shift) - forces(x - shift)).flatten() / (2 * step))
    return torch.stack(columns)


differences, _ = vibrations(by_differences(x), masses)
gap = ((differences[6:] / squares[6:]).sqrt() - 1).abs().max()
print(f"frequencies: relative difference at most {gap:.0e}")
assert gap < 1e-6

# %%
# A third check includes the masses: for two atoms, :math:`\omega^2 = V'' (1 / m_1 + 1 / m_2)`. At the distance
# :math:`2^{1/6}`, :math:`V'' = 72 / 2^{1/3}`.

pair = torch.tensor([[0.0, 0.0, 0.0], [2 ** (1 / 6), 0.0, 0.0]])
block = hessian(lennard_jones(2))(pair).reshape(6, 6)
stretch = vibrations(block, torch.tensor([1.0, 3.0]))[0][-1].item()
np.testing.assert_allclose(stretch, 72 / 2 ** (1 / 3) * (1 + 1 / 3))

# %%
# Count
# -----
# How much memory does the Hessian need? We compare torch's own Hessian, which computes all columns at once, with
# ``hessian`` within ``2**26`` bytes. On the :term:`meta device` nothing is computed.

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
    print(f"{atoms:3} atoms: {peaks[-1][0]:,} bytes, {peaks[-1][1]:,} in chunks")

# %%
# With twice as many atoms, all columns at once need about eight times the memory. For 152 atoms:

assert 7 < peaks[2][0] / peaks[1][0] < 9
assert max(within for _, within in peaks) <= 2**26
costs.claim("hessian, budget", smaller_peak_than="torch.func.hessian", by=5)

# %%
# Time
# ----
# We time five methods for the Hessian of our cluster.

ways = {
    "hessian": hessian(energy),
    "hessian, budget": within,
    "torch.func.hessian": torch.func.hessian(energy),
    "autograd.functional": lambda x: torch.autograd.functional.hessian(energy, x),
    "differences of forces": lambda x: by_differences(x).reshape(N, 3, N, 3),
}
times = compare(ways, x, rounds=8, budget=0.2, costs=True)
times

# %%
# Compare the small budget with all columns at once:

times.claim("hessian, budget", faster_than="torch.func.hessian")

# %%
# ``torch.autograd.functional`` computes one column at a time. It needs the least memory, but more time:

times.claim("hessian, budget", faster_than="autograd.functional")

# %%
# What goes wrong
# ---------------
# *The atoms are not at a minimum.* Rotations then change the energy, and their squares are not zero. These are the
# values before the positions were optimized:

unrelaxed, _ = vibrations(hessian(energy)(start).reshape(3 * N, 3 * N), masses)
near_zero = unrelaxed[unrelaxed.abs().argsort()[:6]]
print("six nearest to zero:", *(f"{value:.1e}" for value in near_zero))
assert near_zero.abs().max() > 1e-3 * squares[6], "update this section"

# %%
# *A custom kernel has no second derivative.* Fast kernels compute the forces together with the energy, and keep them
# for the backward pass. For torch these forces are constants, so every second derivative is zero.


class Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(grad(energy)(x))  # stands for compiled code
        return energy(x)

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0]


zeros = torch.autograd.functional.hessian(Kernel.apply, x)
assert not zeros.any(), "torch detects it: update this section"
try:
    hessian(Kernel.apply)(x)
except RuntimeError as error:
    print(fill(f"RuntimeError: {error}", 88))

# %%
# ``torch.autograd.functional`` returned zeros. ``hessian`` raises an error, because it compares its first result with
# finite differences of the forces. Write the backward pass with torch's operations.


class Repaired(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return energy(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, u):
        return u * grad(energy)(*ctx.saved_tensors)


torch.testing.assert_close(hessian(Repaired.apply)(x).reshape(3 * N, 3 * N), H)

# %%
# Takeaway
# --------
# Optimize the positions, compute the Hessian within a budget in float64, and check first that six squares are zero.
#
# * If the code of your forces cannot be changed, take differences of forces: they need 6 N evaluations.
# * If you need only a few modes, use products (:doc:`/tutorials/uses/curvature_spectrum`).
# * If distant atoms do not interact, most of the Hessian is zero: see :doc:`/tutorials/sparse/passes`.
