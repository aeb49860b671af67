r"""
What makes the derivatives of a network better?
===============================================

Two networks with nearly the same loss can have very different second derivatives, and one of them may have none at
all. What ruins them is chosen before and during the training, where the loss does not show it.

**Answer:** more samples first; a smooth activation always; as little regularisation as the noise asks for; and, where
derivatives can be sampled, Sobolev training, which fits them too: ``train(..., slopes=...)``.
"""

# %%
# The function and its errors
# ---------------------------
# On :math:`(-2, 2) \times (-1, 1)`,
#
# .. math::
#
#     F(x_1, x_2) = \left(\sin(2 x_1) \cos(\pi x_2), \; e^{-x_1^2 - x_2^2}, \; x_1^2 x_2 + \frac{1}{3} x_2^3\right).
#
# A network 2 -> 100 -> 100 -> 3 is trained in one way after another, and for each we keep its derivatives on a grid
# beside the exact ones.

import torch
from torch import nn

from funcdiff import batch_hessian, batch_jacobian, hessian_taylor, jacobian_forward
from funcdiff.errors import rms, variant_table
from funcdiff.problems import study_network, surface, surface_hessian, surface_jacobian
from funcdiff.surrogates import jacobians, train, uniform

low, high = [-2.0, -1.0], [2.0, 1.0]
axes = [torch.linspace(a, b, 50, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
grid = torch.cartesian_prod(*axes)
exact = {"values": surface(grid), "first": surface_jacobian(grid), "second": surface_hessian(grid)}


def derivatives(network, points=grid):
    first = batch_jacobian(network, jacobian=jacobian_forward)
    second = batch_hessian(network, hessian=hessian_taylor)
    return {"values": network(points), "first": first(points), "second": second(points)}


def against_exact(network):
    found = derivatives(network.double().eval().requires_grad_(False))
    return {quantity: (found[quantity], exact[quantity]) for quantity in exact}


# %%
# By hand
# -------
# A smooth network's second derivative is what the finite differences of its first tend to. One check, before all
# that follows rests on them:


def fresh(activation=nn.GELU, dtype=torch.float32):
    return study_network((2, 100, 100, 3), activation=activation, dtype=dtype)


smooth, h = fresh(dtype=torch.float64).requires_grad_(False), 1e-5
right, left = (derivatives(smooth, grid + torch.tensor([step, 0.0])) for step in (h, -h))
difference = (right["first"] - left["first"]) / (2 * h)
torch.testing.assert_close(derivatives(smooth)["second"][..., 0], difference, rtol=1e-5, atol=1e-7)

# %%
# The recipe
# ----------
# One function trains all: it is told what to change.


def trained(samples=500, noise=0.0, iterations=300, activation=nn.GELU, dtype=torch.float32, **options):
    x = uniform(samples, low, high, seed=1).to(dtype)
    noisy = surface(x) + noise * torch.randn(samples, 3, generator=torch.Generator().manual_seed(3)).to(dtype)
    network = fresh(activation, dtype)
    train(network, x, noisy, iterations=iterations, **options)
    return network


# %%
# Too little data
# ---------------

variants = {f"{samples} samples": against_exact(trained(samples)) for samples in (50, 150, 500)}
variant_table(variants)

# %%


def ratio(worse, better, quantity):
    """How many times the RMS error of one variant is that of another."""
    return rms(torch.sub(*worse[quantity])) / rms(torch.sub(*better[quantity]))


base = variants["500 samples"]
for quantity in exact:
    print(f"{quantity}: 50 samples leave {ratio(variants['50 samples'], base, quantity):.2g} times the error of 500")
    assert ratio(variants["50 samples"], base, quantity) > 1

# %%
# Over-fitting and over-regularisation
# ------------------------------------
# 100 samples with noise. Without a penalty on the weights the network fits the noise, whose slopes are steep; with too
# much of it, it can follow neither the noise nor the function.

penalties = {"no penalty": 0.0, "some": 3.0, "too much": 100.0}
regularised = {name: against_exact(trained(100, noise=0.2, decay=decay)) for name, decay in penalties.items()}
variant_table(regularised)

# %%

for name in ("no penalty", "too much"):
    print(
        f"{name}: {ratio(regularised[name], regularised['some'], 'second'):.3g} times the error in second derivatives"
    )
    assert ratio(regularised[name], regularised["some"], "second") > 1

# %%
# The activation
# --------------
# The same training with others. ReLU is made of straight pieces: its first derivative jumps.

others = {each.__name__: against_exact(trained(activation=each)) for each in (nn.SiLU, nn.Tanh, nn.ReLU)}
by_activation = {"GELU": base, **others}
variant_table(by_activation)

# %%
# Digits
# ------
# The same weights, evaluated in float32 and in float64, differ by rounding. It must be held against the error of the
# fit, which no digits remove: derivatives of an explicit formula lose few digits, unlike finite differences.

network = trained(iterations=100).requires_grad_(False)
single = derivatives(network, grid.float())
double = derivatives(network.double())
rounding = {name: (single[name].double(), double[name]) for name in exact}
for quantity in exact:
    assert ratio(rounding, base, quantity) < 0.01, "rounding in float32 now matters here: update this section, Digits"
variant_table({"float32 against float64": rounding})

# %%

variant_table({"trained in float32": base, "trained in float64": against_exact(trained(dtype=torch.float64))})

# %%
# Prediction: what Sobolev training costs
# ---------------------------------------
# The loss holds the Jacobian as well, so each iteration pushes a tangent for each input through the network, and goes
# back through that.

from funcdiff.measure import compare, count

x = uniform(500, low, high, seed=1)
network = fresh()
weights = list(network.parameters())


def plain():
    return torch.autograd.grad((network(x) - surface(x)).square().mean(), weights)


def sobolev():
    misfit = (network(x) - surface(x)).square().mean() + (jacobians(network, x) - surface_jacobian(x)).square().mean()
    return torch.autograd.grad(misfit, weights)


costs = count({"plain": plain, "sobolev": sobolev})
costs

# %%
costs.claim("plain", fewer_flops_than="sobolev")

# %%
# Measurement: what it buys
# -------------------------
# Held against plain training with the same iterations, and with as many more as make up for the FLOPs.

times = compare({"plain": plain, "sobolev": sobolev}, equal=False, rounds=9)
times.claim("plain", faster_than="sobolev")

# %%

dearer = costs["sobolev"].flops / costs["plain"].flops
fits = {
    "plain": base,
    "plain, as many FLOPs": against_exact(trained(iterations=round(300 * dearer))),
    "Sobolev": against_exact(trained(slopes=surface_jacobian(x))),
}
variant_table(fits)

# %%

from funcdiff.plots import plot_dots

sizes = {name: {q: rms(fit - true) / rms(true) for q, (fit, true) in pairs.items()} for name, pairs in fits.items()}
plot_dots(sizes, label="RMS error / RMS of exact", title="What three trainings leave of errors, by derivative")

# %%

for rival in ("plain", "plain, as many FLOPs"):
    gains = [f"{quantity} {ratio(fits[rival], fits['Sobolev'], quantity):.3g}" for quantity in exact]
    print(f"Sobolev training divides the errors of the training '{rival}' by:", ", ".join(gains))
assert ratio(base, fits["Sobolev"], "first") > 2

# %%
# What breaks
# -----------
# The second derivative of ReLU is zero wherever it exists, and so is that of the whole network: nothing is raised, and
# the Hessian of a well fitted function is all zeros.

relu_second, exact_second = by_activation["ReLU"]["second"]
assert not relu_second.any(), "a ReLU network now has second derivatives: update this section, What breaks"
print("largest second derivative:", relu_second.abs().max().item(), "exact:", exact_second.abs().max().item())

# %%
# Takeaway
# --------
# Choose a smooth activation, spend on samples, and watch the derivatives of what you train, not only its loss. Fit the
# derivatives themselves if the simulation can give them, above all where samples are dear. The exception is a network
# whose second derivatives nobody takes: ReLU and float32 serve it well.
