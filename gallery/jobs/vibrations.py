r"""
How do I find the vibrations of a molecule from its energy?
===========================================================

The frequencies of a molecule follow from the Hessian of its energy at a minimum. For :math:`N` atoms this matrix has
only :math:`9 N^2` entries. But an energy of pairs has :math:`N^2 / 2` terms, and the usual code computes all
:math:`3 N` columns at once, so its memory grows with :math:`N^3`.

**Answer:** Compute the Hessian within a memory budget, and divide each entry by the square roots of its two masses. The
eigenvalues are the squares of the angular frequencies, and six of them are zero. ``hessian`` chooses two backward
passes here (:func:`funcdiff.hessian_double_backward`), and the largest chunk of columns that fits.

.. code-block:: python

    from funcdiff import hessian

    H = hessian(energy, chunk_size="auto", budget=2**30)(x)  # x: (N, 3), in float64
    roots = masses.sqrt().repeat_interleave(3)
    squares, modes = torch.linalg.eigh(H.reshape(3 * N, 3 * N) / roots.outer(roots))
"""

# %%
# Use it
# ------
# Our molecule is a cluster of 38 argon atoms. Each pair of atoms at distance :math:`r` adds the Lennard-Jones energy
# :math:`V(r) = 4 (r^{-12} - r^{-6})`. In these units the depth of a pair, its size and the mass of an atom are 1.

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
# The best known arrangement of 38 atoms is a piece of a cubic crystal. We take it from a grid and relax it by SciPy's
# L-BFGS, with forces from :func:`torch.func.grad`.

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
# The energy agrees with the published one to all six decimals. We compute the Hessian within ``2**22`` bytes and show
# the recipe, the number of columns at once, and the counted peak.

within = hessian(energy, chunk_size="auto", budget=2**22)
H = within(x).reshape(3 * N, 3 * N)
explain(within, x)

# %%
# The eigenvalues of the mass-weighted Hessian are the squares :math:`\omega^2`, and its eigenvectors are the modes.


def vibrations(matrix, masses):
    roots = masses.sqrt().repeat_interleave(3)
    return torch.linalg.eigh(matrix / roots.outer(roots))


squares, modes = vibrations(H, masses)
print("seven smallest squares:", *(f"{value:.1e}" for value in squares[:7]))
assert squares[:6].abs().max() < 1e-8 * squares[6]

# %%
# Six squares are zero up to rounding, because three translations and three rotations cost no energy. The others are
# positive, so this is a minimum. For argon we convert the frequencies to wave numbers.

from scipy.constants import atomic_mass, c, k

depth, size, mass = 119.8 * k, 3.405e-10, 39.948 * atomic_mass
unit = np.sqrt(depth / mass) / size / (2 * np.pi * c) / 100  # 1/cm
wave_numbers = unit * squares[6:].sqrt()
levels, copies = wave_numbers.round(decimals=6).unique(return_counts=True)
print(f"{len(levels)} frequencies, from {levels[0]:.1f} to {levels[-1]:.1f} per cm")
assert copies.max() == 3

# %%
# No frequency belongs to more than three modes. The symmetry of a cube demands this, and our code does not know it. We
# draw the slowest mode, and the one that is most similar to uniform growth of the cluster.

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
# In the breathing mode, all atoms that move go outwards together, and half a period later inwards. The slowest mode
# twists parts of the cluster and does not change its size.
#
# Check it by hand
# ----------------
# For one pair with :math:`d = x_i - x_j` and :math:`r = |d|`, the block of the Hessian between the two atoms is
# :math:`-K` with
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
# The usual reference needs no second derivative: central differences of the forces, from 6 N evaluations.


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
# Two atoms of masses :math:`m_1` and :math:`m_2` have a closed form, which also checks the masses: at the distance
# :math:`2^{1/6}`, :math:`\omega^2 = V'' (1 / m_1 + 1 / m_2)` with :math:`V'' = 72 / 2^{1/3}`.

pair = torch.tensor([[0.0, 0.0, 0.0], [2 ** (1 / 6), 0.0, 0.0]])
block = hessian(lennard_jones(2))(pair).reshape(6, 6)
stretch = vibrations(block, torch.tensor([1.0, 3.0]))[0][-1].item()
np.testing.assert_allclose(stretch, 72 / 2 ** (1 / 3) * (1 + 1 / 3))

# %%
# Count
# -----
# We count the peak memory on the :term:`meta device`, where nothing is computed. The first candidate is torch's own
# Hessian, which computes all columns at once by vmap. The second one stays within ``2**26`` bytes.

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
    print(
        f"{atoms:3} atoms: {peaks[-1][0]:,} bytes at once, {peaks[-1][1]:,} in chunks"
    )

# %%
# With twice as many atoms, all columns at once need about eight times the memory. For 152 atoms:

assert 7 < peaks[2][0] / peaks[1][0] < 9
assert max(within for _, within in peaks) <= 2**26
costs.claim("hessian, budget", smaller_peak_than="torch.func.hessian", by=5)

# %%
# Time
# ----
# We time the Hessian of our cluster in five ways.

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
# A small budget need not cost time. This is the comparison with all columns at once:

times.claim("hessian, budget", faster_than="torch.func.hessian")

# %%
# ``torch.autograd.functional`` computes one column after the other. It needs the least memory, but more time:

times.claim("hessian, budget", faster_than="autograd.functional")

# %%
# What goes wrong
# ---------------
# *The structure is not relaxed.* Rotations then change the energy, and their squares are no longer zero. Before the
# relaxation the same code finds these:

unrelaxed, _ = vibrations(hessian(energy)(start).reshape(3 * N, 3 * N), masses)
near_zero = unrelaxed[unrelaxed.abs().argsort()[:6]]
print("six nearest to zero:", *(f"{value:.1e}" for value in near_zero))
assert near_zero.abs().max() > 1e-3 * squares[6], "update this section"

# %%
# *A custom kernel without a rule.* Fast kernels compute the forces together with the energy, and keep them for the
# backward pass. For torch these forces are constants, so every second derivative is zero.


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
# ``torch.autograd.functional`` returned zeros and raised no error. ``hessian`` compares its first result with finite
# differences of the forces, and raises an error. As a remedy, write the backward pass with operations of torch.


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
# Relax the structure, compute the Hessian within a budget in float64, and look at the six zeros first.
#
# * If the code of your forces cannot be changed, take differences of forces: they need 6 N evaluations.
# * If you need only a few of the modes, or the Hessian itself does not fit, use products
#   (:doc:`/tutorials/uses/curvature_spectrum`).
# * If distant atoms do not interact, most of the Hessian is zero: see :doc:`/tutorials/sparse/passes`.
