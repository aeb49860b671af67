r"""
Should I loop over the rows of a Jacobian?
==========================================

Reverse mode computes a Jacobian row by row. One call of ``torch.autograd.grad`` returns row :math:`i`, the derivatives
:math:`\partial y_i / \partial x_j` of one output. A function with 16 outputs has 16 rows, so the obvious program is a
loop of 16 calls.

The loop runs the same operations 16 times: for each row another unit vector goes backward through the function. All 16
vectors can also go backward together, as one matrix. Each operation then runs once. The arithmetic is the same, but a
small function spends most of its time on starting operations.

**Answer:** No. Call :func:`funcdiff.jacobian`, which computes all rows together. By hand, it is ``vmap`` of the
backward pass over the identity matrix.

.. code-block:: python

    from funcdiff import jacobian

    J = jacobian(func)(x)  # shape: that of the output, then that of x

    y, backward = torch.func.vjp(func, x)  # the same by hand, for a vector y
    (J,) = torch.func.vmap(backward)(torch.eye(len(y)))
"""

# %%
# Use it
# ------
# Our function is one layer with 16 inputs and 16 outputs, :math:`f(x) = \tanh(Wx + b)`. We differentiate it with
# respect to ``x``, which is argument number 2. The result has 16 rows and 16 columns.

import torch
from torch.nn.functional import linear

from funcdiff import explain, jacobian


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


D = 16
weight, bias, x = torch.randn(D, D), torch.randn(D), torch.randn(D)

J = jacobian(predict, argnums=2)(weight, bias, x)
print(J.shape)

# %%
# Which method computed it? :func:`funcdiff.explain` shows the :term:`recipe` that was chosen, and the predicted cost of
# each candidate.

explain(jacobian(predict, argnums=2), weight, bias, x)

# %%
# The first line is the recipe that was used. With as many outputs as inputs it is ``jacobian_batched_grad``: reverse
# mode, with all rows in one call of ``torch.autograd.grad``. You can call it by its name:
# ``jacobian_batched_grad(predict, argnums=2)(weight, bias, x)``.
#
# Check it by hand
# ----------------
# The derivative of tanh is :math:`1 - \tanh^2`. Row :math:`i` of the Jacobian is therefore row :math:`i` of the weight
# times a number: :math:`J_{ij} = (1 - f_i^2)\, W_{ij}`. We compare with this formula.

expected = (1 - predict(weight, bias, x) ** 2)[:, None] * weight
torch.testing.assert_close(J, expected)

# %%
# Next we write the loop. Each turn chooses one output by a unit vector and asks autograd for its derivatives.


def row_loop(weight, bias, x):
    """Compute one row in each call."""
    x = x.detach().requires_grad_()
    y = predict(weight, bias, x)
    units = torch.eye(len(y))
    rows = [torch.autograd.grad(y, x, unit, retain_graph=True)[0] for unit in units]
    return torch.stack(rows)


torch.testing.assert_close(row_loop(weight, bias, x), expected)

# %%
# Now the same without the loop. :func:`torch.func.vjp` returns a function that multiplies a vector by the Jacobian from
# the left, :math:`u^T J` (a :term:`VJP`). With a unit vector this is one row. :func:`torch.func.vmap` calls that
# function for all unit vectors at once (:term:`vmap`).

from torch.func import vjp, vmap


def vmap_over_vjp(weight, bias, x):
    """Compute all rows in one batched call."""
    y, pull_back = vjp(lambda x: predict(weight, bias, x), x)
    (rows,) = vmap(pull_back)(torch.eye(len(y)))
    return rows


torch.testing.assert_close(vmap_over_vjp(weight, bias, x), expected)

# %%
# Count
# -----
# The loop and the batch do the same arithmetic in a different number of steps. We compare ``jacobian`` with four other
# methods. :func:`funcdiff.jacobian_loop` loops and :func:`funcdiff.jacobian_reverse` uses ``vmap``, as we did by hand.
# ``jacobian_batched_grad`` passes all unit vectors to ``torch.autograd.grad`` with ``is_grads_batched=True``. We first
# check that all agree.

from funcdiff import jacobian_batched_grad, jacobian_loop, jacobian_reverse

recipes = {
    "jacobian": jacobian(predict, argnums=2),
    "jacobian_loop": jacobian_loop(predict, argnums=2),
    "jacobian_batched_grad": jacobian_batched_grad(predict, argnums=2),
    "jacobian_reverse": jacobian_reverse(predict, argnums=2),
    "torch.func.jacrev": torch.func.jacrev(predict, argnums=2),
}
for recipe in recipes.values():
    torch.testing.assert_close(recipe(weight, bias, x), expected)

# %%
# Then we count what one call of each does. The counts are exact and involve no clock.

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

costs = count(recipes, weight, bias, x)
costs

# %%
# The FLOPs (floating-point operations) of the matrix products are the same for all: one evaluation of the function and
# one :term:`pass` back for each row. The number of operations, in the second column, differs. An :term:`operation` is
# one call into torch's library, such as a product or a sum, and each one costs time to start.

costs.claim("jacobian_reverse", fewer_operations_than="jacobian_loop")

# %%
# Time
# ----
# ``compare`` times the candidates in turns, in random order, so that a slow moment of the machine affects all of them
# alike. One turn of all of them is a :term:`round`. A :term:`ratio` is taken within each round.

comparison = compare(recipes, weight, bias, x)
comparison

# %%
# Beside the median stands its spread, the :term:`IQR`. The ratio says how many times as long as the fastest recipe each
# one takes. The automatic recipe gains this factor over the loop:

comparison.claim("jacobian", faster_than="jacobian_loop")

# %%
# Each call of ``jacobian`` first looks up which recipe it chose for these arguments. For a function as small as ours,
# this takes a visible part of the time. The chosen recipe, called by name, does without it:

comparison.claim("jacobian_batched_grad", faster_than="jacobian")

# %%
# ``jacobian_reverse`` starts two transforms of ``torch.func`` at each call, but no loop:

comparison.claim("jacobian_reverse", faster_than="jacobian_loop")

# %%
# More outputs
# ------------
# The loop makes one call for each output, so its time should grow with their number. We keep 16 inputs and increase the
# number of outputs from 1 to 1024.

names = ["jacobian", "jacobian_loop", "jacobian_batched_grad", "jacobian_reverse"]


def with_outputs(m):
    """The recipes, and a layer with D inputs and m outputs."""
    layer = torch.randn(m, D), torch.randn(m), torch.randn(D)
    return {name: recipes[name] for name in names}, layer


study = sweep(with_outputs, [1, 4, 16, 64, 256, 1024], label="outputs m", rounds=9)
gain = study[1024].ratio("jacobian_loop", "jacobian_batched_grad").median
plot(
    study,
    title=f"With 1024 outputs, the loop takes {gain:.0f}× as long as one batched call",
)

# %%
# The curve of the loop should rise with each output. Those of the batched recipes should stay flat until the arithmetic
# takes longer than the calls. With many more outputs than inputs, ``jacobian`` changes to forward mode, which computes
# columns: see :doc:`/tutorials/jacobians/jacrev_against_jacfwd`.
#
# With a single output there is only one row, and batching cannot help. We expect the loop to be faster there, because
# it starts no transform:

study[1].claim("jacobian_loop", faster_than="jacobian_reverse")

# %%
# What goes wrong
# ---------------
# A batched call needs a derivative formula that is right for many vectors at once. For :func:`torch.cdist` torch's
# formula is not: the first row of the Jacobian is right and the others are wrong, and no error is raised. We compare
# with the loop.

a, b = torch.randn(2, 3, 2, dtype=torch.float64)


def distances(a):
    return torch.cdist(a, b).flatten()


by_rows = jacobian_loop(distances)(a)
batched = torch.func.jacrev(distances)(a)
torch.testing.assert_close(batched[0], by_rows[0])
errors = (batched - by_rows).abs().amax(dim=(1, 2))
print("error of each row:", *(f"{error:.2f}" for error in errors))
assert not torch.allclose(batched, by_rows), (
    "torch has fixed cdist: update this section"
)

# %%
# :func:`funcdiff.jacobian` knows this fault and leaves the batched recipe out. Its result is right.

torch.testing.assert_close(jacobian(distances)(a), by_rows)
print("jacobian chose", explain(jacobian(distances), a).recipe)

# %%
# If you need a batched recipe there, write the distance in simpler operations:


def distances_by_hand(a):
    return (a[:, None] - b).square().sum(-1).sqrt().flatten()


torch.testing.assert_close(jacobian_reverse(distances_by_hand)(a), by_rows)

# %%
# Takeaway
# --------
# Call :func:`funcdiff.jacobian` and do not loop. The exceptions are:
#
# * If the function has one output, you need its gradient, which is one row: :func:`torch.func.grad`.
# * If ``vmap`` does not support an operation in the function, the loop is what remains. ``jacobian`` falls back to it.
# * If all rows do not fit in memory, set ``chunk_size``: see :doc:`/tutorials/batches/chunk_size`.
# * If you doubt a batched result for a new operation, compare it with :func:`funcdiff.jacobian_loop`.
