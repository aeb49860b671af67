r"""
Which way to compute a Hessian-vector product should I use?
===========================================================

A Hessian-vector product says how the gradient changes if :math:`x` moves in the direction :math:`v`:

.. math::

    Hv = \frac{\mathrm{d}}{\mathrm{d}t}\, \nabla f(x + t v) \quad \text{at } t = 0.

Take :math:`f(x) = x_0^2 x_1` at :math:`(3, 2)`. Its gradient is :math:`(2 x_0 x_1,\; x_0^2)`. Along :math:`v = (1, 0)`
the gradient changes at the rate :math:`(2 x_1,\; 2 x_0) = (4, 6)`, and this is :math:`Hv`. The Hessian itself is never
built: for :math:`n` inputs it has :math:`n^2` entries, and the product has only :math:`n`.

**Answer:** Call :func:`funcdiff.hvp`. It makes two backward passes, through the function and then through its gradient.
Measured below, they need less arithmetic than the usual ``jvp`` of ``grad``.

.. code-block:: python

    from funcdiff import hvp

    Hv = hvp(func, (x,), (v,))  # func has one output; Hv has the shape of x
"""

# %%
# Use it
# ------
# Our function is the mean square of a network's outputs, for 100 rows of 5 inputs. We multiply its Hessian, with
# respect to all 500 inputs, by one vector. The result has the shape of the inputs. We print it and the chosen
# :term:`recipe`.

import torch

from funcdiff import explain, hvp
from funcdiff.problems import study_network

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = study_network().requires_grad_(False).to(device)
rows, directions = (torch.randn(100, 5, device=device) for _ in range(2))


def loss(x):
    return network(x).square().mean()


Hv = hvp(loss, (rows,), (directions,))
print(tuple(Hv.shape), explain(hvp, loss, (rows,), (directions,)).recipe)

# %%
# The arguments are tuples, as for :func:`torch.func.jvp`: first the point (:term:`primal`), then the vector
# (:term:`tangent`). ``hvp`` chose ``hvp_double_backward``, two backward passes of plain autograd. You can call it by
# its name: ``hvp_double_backward(loss, (rows,), (directions,))``.
#
# Check it by hand
# ----------------
# A sum of sines has the Hessian :math:`-\operatorname{diag}(\sin x)`. The product with :math:`v` is therefore
# :math:`-\sin(x_i)\, v_i`. We use 2048 inputs.

x, v = torch.randn(2, 2048, device=device)


def sine_sum(x):
    return x.sin().sum()


expected = -x.sin() * v
torch.testing.assert_close(hvp(sine_sum, (x,), (v,)), expected)

# %%
# With ``torch.func`` we can write the product in two ways. :math:`Hv` is the derivative of the gradient in the
# direction :math:`v`, a ``jvp`` of ``grad``. :math:`H` is symmetric, so :math:`Hv` is also a ``vjp`` of ``grad``: the
# vector times the Jacobian of the gradient.

from torch.func import grad, jvp, vjp

torch.testing.assert_close(jvp(grad(sine_sum), (x,), (v,))[1], expected)
torch.testing.assert_close(vjp(grad(sine_sum), x)[1](v)[0], expected)

# %%
# The name of a recipe says :term:`outer over inner`: forward over reverse is the :term:`forward mode` derivative of the
# :term:`reverse mode` derivative. ``hvp_double_backward`` is reverse over reverse by two calls of
# ``torch.autograd.grad``. All must equal the product with the whole Hessian.

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
# Let :math:`F` be the FLOPs (floating-point operations) of one evaluation, which is one :term:`pass`. A gradient needs
# a pass forward and one back: 2. Reverse over reverse goes forward, back, and back through both: 4. Forward over
# reverse carries a tangent through the gradient, which should need 4 as well. We count.

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
# The peaks of memory in the last column differ little. We divide the FLOPs by those of one pass.

peaks = [cost.peak_bytes for name, cost in costs.items() if name != "gradient"]
assert max(peaks) < 1.01 * min(peaks)

one_pass = count(loss, rows).flops
for name, cost in costs.items():
    print(f"{name:26} {cost.flops / one_pass:.2f} F")

# %%
# The recipes with forward mode need 6, not 4. If :math:`x` changes by :math:`\mathrm{d}x`, then :math:`Wx` changes by
# :math:`W\,\mathrm{d}x + \mathrm{d}W\,x`. The weight is constant, so the second term is zero. But torch fills
# :math:`\mathrm{d}W` with zeros and multiplies, once on the way forward and once on the way back.

assert costs["hvp"].flops == costs["hvp_reverse_over_reverse"].flops == 4 * one_pass
forward, reverse = "hvp_forward_over_reverse", "hvp_reverse_over_reverse"
extra = costs[forward].flops - costs[reverse].flops
assert round(extra / one_pass) == 2, "torch leaves zero tangents out: update this page"
costs.claim(reverse, fewer_flops_than=forward, by=1.4)

# %%
# Time
# ----
# Do the times follow the FLOPs? First the network, where the arithmetic takes most of the time.

times = compare(products(loss), rows, directions, rounds=12)
times

# %%
# The ratio says how many times as long as the fastest recipe each one takes. We expect it to follow the FLOPs:

times.claim("hvp", faster_than="hvp_forward_over_reverse")

# %%
# The same for the two compositions of ``torch.func``:

times.claim(reverse, faster_than=forward)

# %%
# Next the sum of sines, which contains no matrix product. Here the time goes into the calls: two transforms inside each
# other, or two calls of autograd. We add a method that computes the whole Hessian first.


def by_matrix(x, v):
    return hessian(sine_sum)(x) @ v


small_methods = products(sine_sum) | {"H first, then H @ v": by_matrix}
small = compare(small_methods, x, v, rounds=12)
small

# %%
# In this table the order depends on the calls. We expect plain autograd to spend less time on them than the transforms
# do:

small.claim("hvp_double_backward", faster_than="hvp_forward_over_reverse")

# %%
# The whole Hessian has 2048 x 2048 entries, for one product:

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
# The products should be close together, and the whole Hessian far from them.
#
# A function of many small steps
# ------------------------------
# Reverse over reverse stores the graph of the gradient, which grows with the number of steps. Forward over reverse does
# not need this graph, so it uses less memory here. We count a function that applies the sine 50 times, and add ``jvp``
# of ``grad``.


def deep(x):
    for _ in range(50):
        x = x.sin()
    return x.sum()


by_hand = {"jvp of grad": lambda x, v: jvp(grad(deep), (x,), (v,))[1]}
steps = count({**by_hand, **products(deep)}, x, v)
steps.claim("hvp_forward_over_reverse", smaller_peak_than="hvp", by=1.5)

# %%
# ``jvp`` of ``grad`` does not have this advantage: ``grad`` stores a graph in case somebody differentiates again. The
# recipe uses ``vjp`` instead, which releases each value after its use.

steps.claim("hvp_forward_over_reverse", smaller_peak_than="jvp of grad", by=1.5)

# %%
# What goes wrong
# ---------------
# Forward mode needs a forward formula for each operation, and reverse over reverse needs the derivative of each
# derivative. For :func:`torch.cdist` torch has neither, so every recipe with a mode in its name fails. We print the
# start of each error.

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
# ``hvp`` succeeds, because it writes the distance in simpler operations. The Hessian of :math:`\sum_{ij} |a_i - b_j|^2`
# is twice the number of points in ``b``, times the identity, so we can check the product.

product = hvp(squared_distances, (a,), (direction,))
torch.testing.assert_close(product, 2 * 4 * direction)

# %%
# To use another recipe there, write the distance in simpler operations yourself:


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
# * If torch has no second derivative of an operation, ``hvp`` says so or uses another formula. To use a recipe by name,
#   write the operation in simpler ones.
