r"""
Which way to compute a Hessian-vector product should I use?
===========================================================

Suppose you move the input :math:`x` a little in the direction :math:`v`. How does the gradient change? The answer is
the Hessian times :math:`v`. This is a Hessian-vector product, and we can compute it without the Hessian.

Take :math:`f(x) = x_0^2 x_1` at :math:`(3, 2)`. Its gradient is :math:`(2 x_0 x_1,\; x_0^2)`. Move only :math:`x_0`,
which is the direction :math:`v = (1, 0)`. Then the gradient changes at the rate :math:`(2 x_1,\; 2 x_0) = (4, 6)`. This
is :math:`Hv`. For :math:`n` inputs the Hessian has :math:`n^2` entries, and the product has only :math:`n`.

torch can compute it in two ways. ``jvp`` of ``grad`` follows how the gradient changes, in forward mode. Or compute the
gradient :math:`g`, multiply it by :math:`v`, and differentiate the number :math:`g \cdot v` once more. Each way
costs about as much as two or three gradients.

**Answer:** Call :func:`funcdiff.hvp`. It makes two backward passes, one through the function and one through its
gradient. They need less arithmetic than the usual ``jvp`` of ``grad``, because torch's ``jvp`` also multiplies by
zeros.

.. code-block:: python

    import torch
    from funcdiff import hvp

    x, v = torch.tensor([3.0, 2.0]), torch.tensor([1.0, 0.0])
    f = lambda x: x[0] ** 2 * x[1]
    print(hvp(f, (x,), (v,)))  # tensor([4., 6.])
    print(torch.func.jvp(torch.func.grad(f), (x,), (v,))[1])  # the same in torch alone
"""

# %%
# Use it
# ------
# Our function takes 100 rows of 5 numbers, applies a network, and returns the mean square of the outputs. So it has 500
# inputs and one output. We multiply its Hessian by one vector. The vector and the result have the shape of the inputs.

import torch

from funcdiff import explain, hvp
from funcdiff.problems import study_network

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = study_network().requires_grad_(False).to(device)
rows = torch.randn(100, 5, device=device)
directions = torch.randn(100, 5, device=device)


def loss(x):
    return network(x).square().mean()


Hv = hvp(loss, (rows,), (directions,))
print(tuple(Hv.shape), explain(hvp, loss, (rows,), (directions,)).recipe)

# %%
# The arguments are tuples, as for :func:`torch.func.jvp`: first the points (:term:`primals <primal>`), then the vectors
# (:term:`tangents <tangent>`). ``explain`` takes ``hvp`` and these arguments, and names the method that ``hvp`` chose,
# the :term:`recipe`. Here it is ``hvp_double_backward``, which calls ``torch.autograd.grad`` twice.
#
# Check it by hand
# ----------------
# The Hessian of a sum of sines is a diagonal matrix with the entries :math:`-\sin x_i`. So entry :math:`i` of the
# product is :math:`-\sin(x_i)\, v_i`. We use 2048 inputs.

x, v = torch.randn(2, 2048, device=device)


def sine_sum(x):
    return x.sin().sum()


expected = -x.sin() * v
torch.testing.assert_close(hvp(sine_sum, (x,), (v,)), expected)

# %%
# In torch alone there are two formulas. :math:`Hv` is the derivative of the gradient in the direction :math:`v`, so it
# is ``jvp`` of ``grad``. ``vjp`` of ``grad`` gives the product :math:`v^T H` instead. The Hessian is symmetric, so this
# is the same vector.

from torch.func import grad, jvp, vjp

torch.testing.assert_close(jvp(grad(sine_sum), (x,), (v,))[1], expected)
torch.testing.assert_close(vjp(grad(sine_sum), x)[1](v)[0], expected)

# %%
# The package has a recipe for each way. The name of a recipe says :term:`outer over inner`. "Forward over reverse" is
# ``jvp`` of a gradient: :term:`forward mode` differentiates the result of :term:`reverse mode`. "Reverse over reverse"
# is ``vjp`` of ``grad``, and ``hvp_double_backward`` does the same with ``torch.autograd.grad``. All results equal the
# product with the whole Hessian.

from funcdiff import (
    hessian,
    hvp_double_backward,
    hvp_forward_over_reverse,
    hvp_reverse_over_forward,
    hvp_reverse_over_reverse,
)

recipes = {
    "hvp": hvp,
    "hvp_double_backward": hvp_double_backward,
    "hvp_reverse_over_reverse": hvp_reverse_over_reverse,
    "hvp_forward_over_reverse": hvp_forward_over_reverse,
    "hvp_reverse_over_forward": hvp_reverse_over_forward,
}
matrix = hessian(sine_sum)(x)
for recipe in recipes.values():
    torch.testing.assert_close(recipe(sine_sum, (x,), (v,)), expected)
    torch.testing.assert_close(recipe(sine_sum, (x,), (v,)), matrix @ v)

# %%
# Count
# -----
# Let :math:`F` be the number of FLOPs (floating-point operations) of one evaluation, which is one :term:`pass`. A
# gradient needs a pass forward and a pass back: :math:`2F`. Reverse over reverse then goes back through both of these:
# :math:`4F` in all. Forward over reverse carries a tangent along through both, which should also make :math:`4F`. We
# count.

from funcdiff.measure import compare, count


def products(func):
    """Return a function of x and v for each recipe."""
    return {
        name: lambda x, v, recipe=recipe: recipe(func, (x,), (v,))
        for name, recipe in recipes.items()
    }


candidates = {"gradient": lambda x, v: grad(loss)(x), **products(loss)}
costs = count(candidates, rows, directions)
costs

# %%
# The peaks of memory in the last column are nearly the same. We divide the FLOPs by those of one pass.

peaks = [cost.peak_bytes for name, cost in costs.items() if name != "gradient"]
assert max(peaks) < 1.01 * min(peaks)

one_pass = count(loss, rows).flops
for name, cost in costs.items():
    print(f"{name:26} {cost.flops / one_pass:.2f} F")

# %%
# The recipes with forward mode need :math:`6F` and not :math:`4F`. Forward mode computes how :math:`Wx` changes:
# :math:`W\,\mathrm{d}x + \mathrm{d}W\,x`. The weight :math:`W` is constant, so the second term is zero. But torch fills
# :math:`\mathrm{d}W` with zeros and multiplies by it, once on the way forward and once on the way back.

assert costs["hvp"].flops == costs["hvp_reverse_over_reverse"].flops == 4 * one_pass
forward, reverse = "hvp_forward_over_reverse", "hvp_reverse_over_reverse"
extra = costs[forward].flops - costs[reverse].flops
assert round(extra / one_pass) == 2, "torch leaves zero tangents out: update this page"
costs.claim(reverse, fewer_flops_than=forward, by=1.4)

# %%
# Time
# ----
# Do the times follow the FLOPs? We time the network first. Most of its time is arithmetic.

times = compare(products(loss), rows, directions, rounds=12)
times

# %%
# The column *ratio to fastest* says how many times as long a recipe takes as the first one. We expect it to follow
# the FLOPs:

times.claim("hvp", faster_than="hvp_forward_over_reverse")

# %%
# We compare the same two formulas in their versions with ``torch.func``:

times.claim(reverse, faster_than=forward)

# %%
# Next we time the sum of sines. It has no matrix product. Most of the time is spent on the overhead of each call: two
# transforms inside each other, or two calls of autograd. We add a method that computes the whole Hessian first.


def by_matrix(x, v):
    return hessian(sine_sum)(x) @ v


small_methods = products(sine_sum) | {"H first, then H @ v": by_matrix}
small = compare(small_methods, x, v, rounds=12)
small

# %%
# Here the overhead decides. We expect less overhead for the two calls of autograd:

small.claim("hvp_double_backward", faster_than="hvp_forward_over_reverse")

# %%
# The whole Hessian has 2048 x 2048 entries, and we need it for only one product:

small.claim("hvp", faster_than="H first, then H @ v", by=10)

# %%
# It also needs much more memory:

memory = count(small_methods, x, v)
memory.claim("hvp", smaller_peak_than="H first, then H @ v", by=1000)

# %%
# The figure shows the times on a logarithmic axis.

from funcdiff.plots import plot

factor = small["H first, then H @ v"].median / small["hvp"].median
plot(small, title=f"One product: the whole Hessian takes {factor:.0f}× as long as hvp")

# %%
# The products should take far less time than the whole Hessian.
#
# A function of many small steps
# ------------------------------
# Our next function applies the sine 50 times. Reverse over reverse stores the intermediate results of the function and
# of its gradient, and these grow with the number of steps. Forward over reverse does not store those of the gradient.
# So we expect it to use less memory. We count it, and also ``jvp`` of ``grad``.


def deep(x):
    for _ in range(50):
        x = x.sin()
    return x.sum()


by_hand = {"jvp of grad": lambda x, v: jvp(grad(deep), (x,), (v,))[1]}
steps = count({**by_hand, **products(deep)}, x, v)
steps.claim("hvp_forward_over_reverse", smaller_peak_than="hvp", by=1.5)

# %%
# ``jvp`` of ``grad`` does not save this memory. ``grad`` also stores intermediate results, in case you differentiate
# again. The recipe uses ``vjp`` instead, which frees each value after its use.

steps.claim("hvp_forward_over_reverse", smaller_peak_than="jvp of grad", by=1.5)

# %%
# What goes wrong
# ---------------
# Each recipe needs derivative formulas for each operation. Forward mode needs a forward formula, and reverse over
# reverse needs the derivative of the backward formula. For :func:`torch.cdist` torch has neither, so every recipe with
# a mode in its name raises an error. We print the start of each message.

from textwrap import shorten

a, b = torch.randn(3, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
direction = torch.randn(3, 2, dtype=torch.float64)


def squared_distances(a):
    return torch.cdist(a, b).square().sum()


for name, recipe in recipes.items():
    if name == "hvp":
        continue
    try:
        recipe(squared_distances, (a,), (direction,))
    except (RuntimeError, NotImplementedError) as error:
        print(f"{name}: {shorten(str(error), 60)}")
    else:
        raise AssertionError("torch differentiates cdist twice: update this section")

# %%
# ``hvp`` works, because it writes the distance in simpler operations. We can check the product: the Hessian of
# :math:`\sum_{ij} |a_i - b_j|^2` is the identity times twice the number of points in ``b``.

product = hvp(squared_distances, (a,), (direction,))
torch.testing.assert_close(product, 2 * 4 * direction)

# %%
# If you call another recipe, write the distance in simpler operations yourself:


def by_differences(a):
    return (a[:, None] - b).square().sum()


for recipe in recipes.values():
    product = recipe(by_differences, (a,), (direction,))
    torch.testing.assert_close(product, 2 * 4 * direction)

# %%
# Takeaway
# --------
# Call ``hvp``. The exceptions are:
#
# * If you need many products at one point, compute the gradient once with :func:`funcdiff.hvp_operator`: see
#   :doc:`/tutorials/products/many_vectors`.
# * If the function has many small steps and memory is short, use :func:`funcdiff.hvp_forward_over_reverse`.
# * If torch cannot differentiate an operation twice, ``hvp`` uses another formula or raises an error. To call a recipe
#   by name, write the operation in simpler ones.
