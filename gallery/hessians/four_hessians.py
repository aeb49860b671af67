r"""
Which of the four ways to compute a Hessian should I use?
=========================================================

A Hessian is the derivative of a derivative. We differentiate the function, and then we differentiate the result once
more. The first derivative is called the inner one, the second the outer one. Each of them can use :term:`forward mode`,
with one pass for each input, or :term:`reverse mode`, with one pass for each output. So there are four combinations.
They return the same numbers at very different costs.

The outer derivative matters most. Suppose a function has 5 inputs and 25 outputs. Its first derivatives are
:math:`25 \times 5 = 125` numbers, and the outer derivative has to differentiate all of them. Forward mode does this in
5 passes, one for each input. Reverse mode needs 125 passes.

**Answer:** Call :func:`funcdiff.hessian`, which chooses for your function. To choose by hand, use forward mode for the
outer derivative, and for the inner one the mode that needs fewer passes. For few inputs and several outputs,
:term:`Taylor mode` needs less than all four combinations, because it computes each second derivative only once.

.. code-block:: python

    import torch
    from funcdiff import hessian
    from torch.func import jacfwd, jacrev

    x = torch.tensor([1.0, 2.0])
    H = hessian(torch.sin)(x)  # (2, 2, 2): the output, then twice the input
    H = jacfwd(jacrev(torch.sin))(x)  # by hand, if there are fewer outputs than inputs
    H = jacfwd(jacfwd(torch.sin))(x)  # by hand, if there are fewer inputs than outputs
"""

# %%
# Use it
# ------
# Our first function is a network with 5 inputs, two hidden layers of 1000 units, and 25 outputs. For each output, the
# Hessian is a matrix of 5 by 5 numbers. So the result has the shape (25, 5, 5).

import torch

from funcdiff import explain, hessian
from funcdiff.problems import study_network

network = study_network().requires_grad_(False)  # we differentiate the inputs only
x = torch.randn(5)

H = hessian(network)(x)
print(tuple(H.shape), explain(hessian(network), x).recipe)

# %%
# The printed name says which method ``hessian`` chose. Each method is a function of its own, a :term:`recipe`. The
# second function is one layer, :math:`f(x) = \tanh(Wx + b)`, with 512 inputs and 32 outputs. Another recipe is chosen
# for it.

from torch.nn.functional import linear


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


weight, bias = torch.randn(32, 512) / 512**0.5, torch.randn(32)
wide_args = weight, bias, torch.randn(512)
wide = hessian(predict, argnums=2)
print(tuple(wide(*wide_args).shape), explain(wide, *wide_args).recipe)

# %%
# Check it by hand
# ----------------
# The second derivative of tanh is :math:`-2 \tanh (1 - \tanh^2)`. For the layer, with :math:`y = f(x)`, this gives
# :math:`H_{ijk} = -2 y_i (1 - y_i^2) W_{ij} W_{ik}`: 32 matrices of 512 by 512 numbers.

y = predict(*wide_args)
expected = torch.einsum("i,ij,ik->ijk", -2 * y * (1 - y**2), weight, weight)
torch.testing.assert_close(wide(*wide_args), expected)

# %%
# You can also combine two Jacobians of torch yourself. The name of a combination is :term:`outer over inner`. "Forward
# over reverse" means that the inner derivative uses reverse mode (``jacrev``) and the outer one forward mode
# (``jacfwd``).

from torch.func import jacfwd, jacrev

composed = jacfwd(jacrev(predict, argnums=2), argnums=2)
torch.testing.assert_close(composed(*wide_args), expected)

# %%
# Count: many inputs, few outputs
# -------------------------------
# How many passes does each combination make for the layer? The inner derivative needs 32 :term:`passes <pass>` in
# reverse mode, one for each output, or 512 in forward mode. Its result has 32 x 512 entries. The outer derivative
# repeats these passes 512 times in forward mode, and 32 x 512 times in reverse mode. We count all four, ``hessian`` and
# Taylor mode.

from funcdiff import (
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
    hessian_taylor,
)
from funcdiff.measure import compare, count
from funcdiff.plots import plot

compositions = {
    "hessian_forward_over_reverse": hessian_forward_over_reverse,
    "hessian_forward_over_forward": hessian_forward_over_forward,
    "hessian_reverse_over_reverse": hessian_reverse_over_reverse,
    "hessian_reverse_over_forward": hessian_reverse_over_forward,
}
recipes = {"hessian": hessian, "hessian_taylor": hessian_taylor, **compositions}

# %%
# We count on the :term:`meta device`, where tensors have shapes but no numbers. Nothing is computed there, and the
# counts are exact.

wide = {name: recipe(predict, argnums=2) for name, recipe in recipes.items()}
costs = count(wide, *(tensor.to("meta") for tensor in wide_args))
costs

# %%
# Compare the FLOPs (floating-point operations) with the peak, the largest memory in use at any moment. The FLOPs do not
# follow the number of passes: the layer is linear before ``tanh``, and forward over forward and Taylor mode skip its
# second derivatives, which are zero. The result is large, so the time also depends on how many bytes a recipe writes.

costs.claim(
    "hessian_forward_over_reverse", smaller_peak_than="hessian_forward_over_forward"
)

# %%
# Time: many inputs, few outputs
# ------------------------------
# Do the times follow the counts? We time the same six recipes. A candidate that takes longer than the budget of one
# second is called once.

times = compare(wide, *wide_args, rounds=9, budget=1.0)
times

# %%
# The ratio says how many times as long as the fastest recipe each one takes. Forward over reverse, which ``hessian``
# chose, should be ahead of the other compositions:

times.claim("hessian_forward_over_reverse", faster_than="hessian_forward_over_forward")

# %%
# Reverse mode outside makes the most passes, so we expect this:

times.claim("hessian_forward_over_reverse", faster_than="hessian_reverse_over_reverse")

# %%
# Count: few inputs, several outputs
# ----------------------------------
# Now we take the network, with 5 inputs and 25 outputs. We count its Hessians for a batch of 100 rows, again on the
# meta device. :func:`funcdiff.batch_hessian` chooses a recipe for the whole batch. :term:`vmap` applies each of the
# other recipes to all rows.

from torch.func import vmap

from funcdiff import batch_hessian


def for_rows(network):
    """Return a function of a batch for each recipe."""
    by_name = {
        name: vmap(recipes[name](network)) for name in recipes if name != "hessian"
    }
    return {"batch_hessian": batch_hessian(network), **by_name}


on_meta = study_network().requires_grad_(False).to("meta")
costs = count(for_rows(on_meta), torch.empty(100, 5, device="meta"))
costs

# %%
# The ranking is different here. Forward over forward needs the fewest FLOPs and the least memory of the four
# combinations. Both combinations with reverse mode outside need gigabytes.

costs.claim(
    "hessian_forward_over_forward",
    fewer_flops_than="hessian_reverse_over_reverse",
    by=50,
)

# %%
# A Hessian is symmetric. Forward over forward computes both of two equal entries, and the values and first derivatives
# more than once. Taylor mode computes each of them once, so it needs the fewest FLOPs of all:

costs.claim("hessian_taylor", fewer_flops_than="hessian_forward_over_forward", by=1.5)

# %%
# ``torch.func.hessian`` uses forward over reverse. Compare Taylor mode with it:

costs.claim("hessian_taylor", fewer_flops_than="hessian_forward_over_reverse", by=5)

# %%
# Time: few inputs, several outputs
# ---------------------------------
# We time a batch of 4 rows, so that even the slowest composition can be timed.

batch = torch.randn(4, 5)
times = compare(for_rows(network), batch, rounds=9, budget=0.5)
times

# %%
# ``batch_hessian`` chose Taylor mode. It should be faster than forward over reverse:

times.claim("batch_hessian", faster_than="hessian_forward_over_reverse")

# %%
# The best and the worst composition differ by this factor:

times.claim(
    "hessian_forward_over_forward", faster_than="hessian_reverse_over_reverse", by=10
)

# %%
# The figure shows all six on a logarithmic axis.

slowest = max(times, key=lambda name: times[name].median)
factor = times[slowest].median / times[times.fastest].median
title = f"Hessians of 4 rows: the slowest takes {factor:.0f}× as long as the fastest"
plot(times, title=title)

# %%
# The two combinations with reverse mode outside should be the last. They make the most passes.
#
# What goes wrong
# ---------------
# For some operations, some combinations return wrong numbers, and torch raises no error. Layer normalization is one of
# them. Reverse over reverse is right for it, so we compare the other recipes with it.

normed = torch.nn.LayerNorm(4, dtype=torch.float64)


def cubic(x):
    return (normed(x) ** 3).sum()


point = torch.randn(4, dtype=torch.float64)
right = hessian_reverse_over_reverse(cubic)(point)
for name, recipe in recipes.items():
    error = (recipe(cubic)(point) - right).abs().max() / right.abs().max()
    print(f"{name:30} relative error {error:.1e}")

# %%
# The two combinations with forward mode inside are wrong. ``hessian`` knows this fault, uses another recipe, and is
# right.

torch.testing.assert_close(hessian(cubic)(point), right)
wrong = hessian_reverse_over_forward(cubic)(point)
assert not torch.allclose(wrong, right), (
    "torch has fixed layer norm: update this section"
)

# %%
# :doc:`/tutorials/hessians/when_they_disagree` explains why.
#
# Takeaway
# --------
# Call ``hessian``. To choose by hand, use Taylor mode for few inputs and several outputs, and forward over reverse
# otherwise. The exceptions are:
#
# * If the function has one output and eight inputs or more, ``hessian`` usually chooses
#   :func:`funcdiff.hessian_double_backward`. It is reverse over reverse with ``torch.autograd.grad``, and needs a
#   little less than forward over reverse. See :doc:`/tutorials/hessians/loss_parameters`.
# * If torch has no forward formula for an operation, use Taylor mode or reverse over reverse, as ``hessian`` does.
# * If the function has several outputs, do not put reverse mode outside: it makes the most passes. Only in a small
#   network can it be the fastest, and ``hessian`` chooses it there.
