r"""
Can Taylor mode compute a Hessian in a few forward passes?
==========================================================

In :term:`Taylor mode <Taylor mode>`, every number in the computation carries its first and second derivatives with it.
Suppose :math:`z = x^2` at :math:`x = 3`. Then :math:`z` is 9, and it carries :math:`z' = 6` and :math:`z'' = 2`. The
next operation, say :math:`y = \sin z`, computes its own derivatives from these:

.. math::

    y' = \cos(z)\, z', \qquad y'' = \cos(z)\, z'' - \sin(z)\, z'^2.

With 5 inputs each number carries 5 first derivatives and 15 second ones, because a symmetric 5 by 5 matrix has 15
different entries. Together with the value, this is the work of 1 + 5 + 15 = 21 evaluations, for any number of outputs.
``torch.func.hessian`` needs up to :math:`(2 + 5)(1 + 25) = 182` for 25 outputs.

**Answer:** Yes, for few inputs and several outputs: :func:`funcdiff.hessian` then usually uses Taylor mode, unless the
layers are small. If you need only the Laplacian, the sum of the second derivatives, call :func:`funcdiff.laplacian`,
which needs even less.

.. code-block:: python

    import torch
    from funcdiff import hessian, laplacian

    x = torch.tensor([1.0, 2.0])
    H = hessian(torch.sin)(x)  # (2, 2, 2): the output, then twice the input
    trace = laplacian(torch.sin)(x)  # (2,): one sum for each output
    H = torch.func.hessian(torch.sin)(x)  # torch's own: the same, with more work
"""

# %%
# Use it
# ------
# Our function is a network with 5 inputs, two hidden layers of 1000 units with tanh, and 25 outputs. We compute the
# Hessian and the Laplacian at one point. The printed name is the method that ``hessian`` chose, its :term:`recipe`.

import torch

from funcdiff import explain, hessian, laplacian
from funcdiff.problems import study_network

torch.manual_seed(0)
network = study_network(activation=torch.nn.Tanh).requires_grad_(False)
x = torch.randn(5)

H = hessian(network)(x)
print(tuple(H.shape), explain(hessian(network), x).recipe)
print(tuple(laplacian(network)(x).shape))

# %%
# Check it by hand
# ----------------
# We write Taylor mode for this network ourselves. Each value :math:`z` carries its first derivatives :math:`z_i` and
# its second derivatives :math:`z_{ij}`. A linear layer computes the product of its weight and each of them. A function
# :math:`g` of one number, such as tanh, changes them by the chain rule:
#
# .. math::
#
#     g(z)_i = g'(z)\, z_i, \qquad g(z)_{ij} = g'(z)\, z_{ij} + g''(z)\, z_i z_j.
#
# For tanh, :math:`g' = 1 - g^2` and :math:`g'' = -2 g g'`.


def through_layer(layer, value, first, second, left, right):
    """Transform a value, its first and its second derivatives."""
    if isinstance(layer, torch.nn.Linear):
        return layer(value), first @ layer.weight.T, second @ layer.weight.T
    value = torch.tanh(value)
    slope = 1 - value**2
    bend = -2 * value * slope
    return value, slope * first, slope * second + bend * first[left] * first[right]


# %%
# The order of two derivatives does not matter, :math:`z_{ij} = z_{ji}`. So we carry only the pairs with
# :math:`i \le j`. At the end we write each of them to both places in the Hessian. We check the result on 20 rows.


def by_hand(x):
    n = x.shape[-1]
    left, right = torch.triu_indices(n, n)
    value, first = x, torch.eye(n)[:, None].expand(n, *x.shape)
    second = torch.zeros(len(left), *x.shape)
    for layer in network:
        value, first, second = through_layer(layer, value, first, second, left, right)
    hessian = value.new_empty(n, n, *value.shape)
    hessian[left, right] = hessian[right, left] = second
    return hessian.movedim((0, 1), (-2, -1))


batch = torch.randn(20, 5)
per_row = torch.func.vmap(torch.func.hessian(network))
torch.testing.assert_close(by_hand(batch), per_row(batch))

# %%
# The recipe ``hessian_taylor`` does the same for any function whose operations it knows. The Laplacian is the sum of
# the :math:`z_{ii}`. The same rules apply to this sum, so ``laplacian`` carries one number instead of 15 second
# derivatives.
#
# We compare several methods. :func:`funcdiff.batch_hessian` chooses a recipe for the whole batch. :term:`vmap` applies
# each of the other recipes to all rows. All results must agree.

from torch.func import vmap

from funcdiff import (
    batch_hessian,
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_reverse,
    hessian_taylor,
)

recipes = {
    "hessian_taylor": hessian_taylor,
    "hessian_forward_over_forward": hessian_forward_over_forward,
    "hessian_forward_over_reverse": hessian_forward_over_reverse,
}
hessians = {"batch_hessian": batch_hessian(network), "by hand": by_hand}
hessians |= {name: vmap(recipe(network)) for name, recipe in recipes.items()}
for batched in hessians.values():
    torch.testing.assert_close(batched(batch), by_hand(batch))

sum_of_diagonal = by_hand(batch).diagonal(0, -2, -1).sum(-1)
torch.testing.assert_close(vmap(laplacian(network))(batch), sum_of_diagonal)

# %%
# Count
# -----
# Let :math:`F` be the number of FLOPs (floating-point operations) of one evaluation, which is one :term:`pass`. With 5
# inputs, Taylor mode should need :math:`(1 + 5 + 15) F`. Forward over reverse, the method of ``torch.func.hessian``,
# should need up to :math:`(2 + n)(1 + m) F` for :math:`n` inputs and :math:`m` outputs: the 2 is for the values and for
# products with derivatives of the weights, which are zero (:doc:`why </explanation/cost>`). (The names say
# :term:`outer over inner`.) We count.

from funcdiff.measure import compare, count
from funcdiff.plots import plot

one_pass = count(network, batch).flops
costs = count(hessians | {"laplacian": vmap(laplacian(network))}, batch)
for name, cost in costs.items():
    print(f"{name:30} {cost.flops / one_pass:6.1f} F")

n = batch.shape[1]
pairs = n * (n + 1) // 2
assert costs["by hand"].flops == (1 + n + pairs) * one_pass

# %%
# ``hessian_taylor`` needs a little less than our code. At the first layer all second derivatives are still zero, and it
# does not multiply them. These are all counts:

assert costs["hessian_taylor"].flops < (1 + n + pairs) * one_pass
assert costs["laplacian"].flops < (2 + n) * one_pass
costs

# %%
# Look at the last column, the peak of memory. Reverse mode must store the intermediate results of all layers. Taylor
# mode needs only the values of the current layer.

costs.claim("hessian_taylor", smaller_peak_than="hessian_forward_over_reverse", by=4)

# %%
# Time
# ----
# Do the times follow these counts? We time the Hessians of the 20 rows.

times = compare(hessians, batch, rounds=9)
times

# %%
# The column *ratio to fastest* says how many times as long a recipe takes as the first one. It is the median over the
# rounds, so it can be a little below 1. We expect Taylor mode to be faster than the best of the other methods:

times.claim("hessian_taylor", faster_than="hessian_forward_over_forward", by=1.5)

# %%
# The figure shows the same times. ``torch.func.hessian`` is the composition forward over reverse.

ratio = times.ratio("hessian_forward_over_reverse", "batch_hessian").median
title = f"5 inputs, 25 outputs: forward over reverse takes {ratio:.1f}× as long"
plot(times, title=title)

# %%
# The times do not follow the FLOPs exactly. Each layer also reads and writes all 21 values in memory,
# and FLOPs do not count this.
#
# Next we time the Laplacian. We compare it with the trace of each Hessian.


def trace(name):
    return lambda x: hessians[name](x).diagonal(0, -2, -1).sum(-1)


traces = {f"trace of {name.removeprefix('hessian_')}": trace(name) for name in recipes}
sums = compare({"laplacian": vmap(laplacian(network)), **traces}, batch, rounds=9)
sums

# %%
# ``laplacian`` makes :math:`2 + 5 = 7` passes, a third of the 21 for the Hessian. The time falls by less than three,
# because the other operations take time as well:

sums.claim("laplacian", faster_than="trace of taylor")

# %%
# Compared with the trace of forward over reverse:

sums.claim("laplacian", faster_than="trace of forward_over_reverse", by=10)

# %%
# What goes wrong
# ---------------
# *There are many inputs and one output.* The number of second derivatives grows with the square of the number of
# inputs. In reverse mode, one pass gives the whole gradient. So Taylor mode needs more. We count both for 50 inputs and
# one output, on the :term:`meta device`, where nothing is computed.

many = study_network((50, 200, 200, 1), activation=torch.nn.Tanh)
many = many.requires_grad_(False).to("meta")
on_many = {name: vmap(recipe(many)) for name, recipe in recipes.items()}
scalar = count(on_many, torch.empty(100, 50, device="meta"))
scalar.claim("hessian_forward_over_reverse", fewer_flops_than="hessian_taylor", by=10)

# %%
# With one output, Taylor mode needs more FLOPs from three inputs on. Reverse over reverse needs only
# :math:`2 (1 + n) = 8` passes:

few = study_network((3, 200, 200, 1), activation=torch.nn.Tanh)
few = few.requires_grad_(False).to("meta")
on_few = {
    "hessian_reverse_over_reverse": vmap(hessian_reverse_over_reverse(few)),
    "hessian_taylor": vmap(hessian_taylor(few)),
}
scalar = count(on_few, torch.empty(100, 3, device="meta"))
scalar.claim("hessian_reverse_over_reverse", fewer_flops_than="hessian_taylor")

# %%
# ``hessian`` makes this comparison for you. For the network with 50 inputs and one output it chooses another recipe:

one_output = study_network((50, 200, 200, 1), activation=torch.nn.Tanh)
explain(hessian(one_output.requires_grad_(False)), torch.randn(50)).recipe

# %%
# An operation without a rule
# ---------------------------
# Taylor mode needs a rule for each operation, as for tanh above. It has none for an RNN or a custom autograd function.
# ``hessian_taylor`` then uses torch's own modes for the whole Hessian. The result is right, but it takes longer. A
# logger reports this, and we print its message. We use a GRU, which is an RNN, on 2 steps of 3 numbers.

import io
import logging

logger = logging.getLogger("funcdiff.taylor")
logger.setLevel(logging.INFO)
logger.addHandler(handler := logging.StreamHandler(log := io.StringIO()))

gru = torch.nn.GRU(3, 4).double().requires_grad_(False)


def last_state(x):
    return gru(x.view(2, 3))[0][-1]


x = torch.randn(6, dtype=torch.float64)
H = hessian_taylor(last_state)(x)
logger.removeHandler(handler)
print(log.getvalue())
assert "NoRuleError: gru" in log.getvalue(), "there is a rule: update this section"

# %%
# Is this Hessian right? We add the Hessians of the 4 outputs, and compare with that of the sum by plain autograd.

of_sum = torch.autograd.functional.hessian(lambda x: last_state(x).sum(), x)
torch.testing.assert_close(H.sum(0), of_sum)

# %%
# Takeaway
# --------
# Call ``hessian``. For few inputs and several outputs it usually uses Taylor mode. The exceptions are:
#
# * If the function has one output and three inputs or more, reverse over reverse needs fewer passes.
# * If there are many inputs and several wide layers, forward over reverse needs fewer passes: compare
#   :math:`(2 + n)(1 + m)` with :math:`1 + n + n(n+1)/2`. ``hessian`` makes this comparison for you.
# * If you need only the sum of the diagonal, use ``laplacian``.
