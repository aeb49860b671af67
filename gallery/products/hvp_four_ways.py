r"""
Which way to a Hessian-vector product?
======================================

A Hessian of :math:`n` inputs has :math:`n^2` numbers; its product with a vector :math:`v` has :math:`n`, and costs a
few gradients. There are several ways to write one, and the one that is usually advised is not always the cheapest.

**Answer:** :func:`funcdiff.hvp_double_backward`, or :func:`funcdiff.hvp_reverse_over_reverse` where it must compose
with other transforms. Forward over reverse multiplies by zeros that torch does not know to be zero.
"""

# %%
# Two functions
# -------------
# A sum of sines of 2048 inputs, where there is hardly any arithmetic; and a network with a scalar loss, where matrix
# products are nearly everything. We differentiate by the input in both.

import torch
from torch.func import grad, jvp, vjp

from funcdiff.problems import study_network

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = study_network().requires_grad_(False).to(device)
x, v = torch.randn(2, 2048, device=device)
rows, directions = torch.randn(2, 100, 5, device=device)


def sine_sum(x):
    return x.sin().sum()


def loss(x):
    return network(x).square().mean()


# %%
# By hand
# -------
# :math:`Hv` is the derivative of the gradient along :math:`v`, a ``jvp`` of ``grad``; it is also the derivative of
# :math:`v^T \nabla f`, a ``vjp`` of ``grad``, since :math:`H` is symmetric. For the sum of sines it is
# :math:`-\sin(x_i)\, v_i`.

expected = -x.sin() * v
torch.testing.assert_close(jvp(grad(sine_sum), (x,), (v,))[1], expected)
torch.testing.assert_close(vjp(grad(sine_sum), x)[1](v)[0], expected)

# %%
# The recipes
# -----------
# Outer over inner; a fourth, by two calls of plain ``torch.autograd.grad``, is reverse over reverse without the
# machinery of a transform. All must equal the product with the whole Hessian.

from funcdiff import (
    hessian_forward_over_reverse,
    hvp_double_backward,
    hvp_forward_over_reverse,
    hvp_reverse_over_forward,
    hvp_reverse_over_reverse,
)

ways = {
    "hvp_forward_over_reverse": hvp_forward_over_reverse,
    "hvp_reverse_over_forward": hvp_reverse_over_forward,
    "hvp_reverse_over_reverse": hvp_reverse_over_reverse,
    "hvp_double_backward": hvp_double_backward,
}
matrix = hessian_forward_over_reverse(sine_sum)(x)
for hvp in ways.values():
    torch.testing.assert_close(hvp(sine_sum, (x,), (v,)), expected)
    torch.testing.assert_close(hvp(sine_sum, (x,), (v,)), matrix @ v)

# %%
# Prediction
# ----------
# In units of :math:`F`, one forward pass of the network: a gradient is a pass forward and one back, 2. Reverse over
# reverse goes forward, back, and back through both: 4. Forward over reverse carries a tangent through the gradient,
# which should double it to 4 as well. We count.

from funcdiff.measure import compare, count


def products(func):
    return {name: lambda x, v, hvp=hvp: hvp(func, (x,), (v,)) for name, hvp in ways.items()}


candidates = {"gradient": lambda x, v: grad(loss)(x), **products(loss)}
costs = count(candidates, rows, directions)
costs

# %%
one_pass = count(loss, rows).flops
for name, cost in costs.items():
    print(f"{name:26} {cost.flops / one_pass:.2f} F = {cost.flops / costs['gradient'].flops:.2f} gradients")

# %%
# Six, not four, with forward mode in it. In :math:`Wx` the derivative is :math:`W \dot x + \dot W x`, and torch fills
# the tangent :math:`\dot W` of the constant weight with zeros and multiplies. That is once forward and once back:

assert costs["hvp_reverse_over_reverse"].flops == 2 * costs["gradient"].flops == 4 * one_pass
extra = costs["hvp_forward_over_reverse"].flops - costs["hvp_reverse_over_reverse"].flops
assert round(extra / one_pass) == 2, "torch has learnt that a constant has no tangent: update this page"
costs.claim("hvp_reverse_over_reverse", fewer_flops_than="hvp_forward_over_reverse", by=1.4)

# %%
# Memory does not tell them apart here: the peaks agree to a hundredth.

peaks = [cost.peak_bytes for name, cost in costs.items() if name != "gradient"]
assert max(peaks) < 1.01 * min(peaks)

# %%
# Measurement: where arithmetic decides
# -------------------------------------

times = compare(products(loss), rows, directions, rounds=12, costs=True)
times

# %%
times.claim("hvp_reverse_over_reverse", faster_than="hvp_forward_over_reverse")

# %%
times.claim("hvp_double_backward", faster_than="hvp_reverse_over_forward")

# %%
# Measurement: where overhead decides
# -----------------------------------
# The sum of sines has no matrix product. What is left is the machinery: two transforms nested in each other, or two
# calls of autograd. We add the product with the whole Hessian.


def by_matrix(x, v):
    return hessian_forward_over_reverse(sine_sum)(x) @ v


small = compare(products(sine_sum) | {"H built, then H @ v": by_matrix}, x, v, rounds=12, costs=True)
small

# %%
small.claim("hvp_double_backward", faster_than="hvp_forward_over_reverse")

# %%
# Against the Hessian
# -------------------
# The matrix has 2048 times 2048 entries, to be multiplied by one vector:

small.claim("hvp_forward_over_reverse", faster_than="H built, then H @ v", by=10)

# %%
memory = count(products(sine_sum) | {"H built, then H @ v": by_matrix}, x, v)
memory.claim("hvp_forward_over_reverse", smaller_peak_than="H built, then H @ v", by=1000)

# %%
# Time and memory together:

from funcdiff.plots import plot_trade

plot_trade(small, title="Four products in one corner, the matrix in the other")

# %%
# A deep function
# ---------------
# Where the zeros do not matter, forward over reverse has an advantage: it needs no graph of the gradient. In a function
# of many small steps that is most of the memory.


def deep(x):
    for _ in range(50):
        x = x.sin()
    return x.sum()


steps = count({"jvp of grad": lambda x, v: jvp(grad(deep), (x,), (v,))[1], **products(deep)}, x, v)
steps.claim("hvp_forward_over_reverse", smaller_peak_than="hvp_reverse_over_reverse", by=1.5)

# %%
# Not so by hand: ``grad`` keeps the graph of what it differentiates in case it is wanted again. The recipe pulls back
# by ``vjp``, which lets go of each value once it is used.

steps.claim("hvp_forward_over_reverse", smaller_peak_than="jvp of grad", by=1.5)

# %%
# What breaks
# -----------
# Forward mode needs a forward formula, reverse over reverse the derivative of each derivative. ``cdist`` has neither
# a forward formula nor a second derivative; written out, the distance has all.

a, b = torch.randn(3, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
direction = torch.randn(3, 2, dtype=torch.float64)
for name, hvp in ways.items():
    try:
        hvp(lambda a: torch.cdist(a, b).square().sum(), (a,), (direction,))
    except (RuntimeError, NotImplementedError) as error:
        print(f"{name}: {type(error).__name__} -- {str(error)[:90]}...")
    else:
        raise AssertionError("torch has mended cdist: update this section")

# %%
# Of :math:`\sum_{ij} |a_i - b_j|^2` the Hessian is twice the number of points in ``b``, times the identity.


def squared_distances(a):
    return (a[:, None] - b).square().sum()


for hvp in ways.values():
    torch.testing.assert_close(hvp(squared_distances, (a,), (direction,)), 2 * 4 * direction)

# %%
# Takeaway
# --------
# Count before you believe: reverse over reverse needs less arithmetic wherever constant weights multiply, and double
# backward has the least machinery. The exceptions: a long function of small steps, where forward over reverse holds
# less; and inside ``vmap``, ``grad`` or ``torch.compile`` there is no plain autograd, and the transforms are the way.
