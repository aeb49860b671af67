r"""
Should I loop over the rows of a Jacobian?
==========================================

A function :math:`f` returns 16 numbers, and you want the derivatives of all of them. One call of
``torch.autograd.grad`` gives the derivatives of one number :math:`y_i` with respect to all inputs. This is row
:math:`i` of the Jacobian. So the obvious program is a loop of 16 calls.

The loop is slow, because it runs the same short operations 16 times. The calls differ only in one argument, a unit
vector. It selects the output that is differentiated: :math:`(1, 0, 0, \ldots)` selects :math:`y_1`, and
:math:`(0, 1, 0, \ldots)` selects :math:`y_2`. You can also pass all 16 unit vectors in one call, as the rows of an
identity matrix. Then each operation runs once, on a larger tensor. This is faster, because starting a short operation
takes longer than its arithmetic.

**Answer:** No: call :func:`funcdiff.jacobian`, which computes all rows together. In torch alone, ``vmap`` runs the
backward pass for all rows of the identity matrix at once. If all rows do not fit in memory, pass ``chunk_size``.

.. code-block:: python

    import torch
    from funcdiff import jacobian

    func, x = torch.tanh, torch.randn(16)
    J = jacobian(func)(x)  # shape: that of the output, then that of x
    y, backward = torch.func.vjp(func, x)  # the same in torch, for a vector y
    (J,) = torch.func.vmap(backward)(torch.eye(len(y)))
"""

# %%
# Use it
# ------
# Our function is one layer with 16 inputs and 16 outputs, :math:`f(x) = \tanh(Wx + b)`. Its arguments are ``weight``,
# ``bias`` and ``x``. With ``argnums=2`` we differentiate with respect to ``x``. (The first argument has the number 0.)
# The result has 16 rows and 16 columns.

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
# There are several methods to compute a Jacobian. Each is a function of its own, a :term:`recipe`. ``jacobian``
# estimates their times and uses the fastest one. :func:`funcdiff.explain` shows what it chose, and the estimates.

explain(jacobian(predict, argnums=2), weight, bias, x)

# %%
# The first line of the table is the chosen recipe. With as many outputs as inputs it is ``jacobian_batched_grad``,
# which passes all unit vectors to ``torch.autograd.grad`` in one call. You can also call it by name:
# ``jacobian_batched_grad(predict, argnums=2)(weight, bias, x)``.
#
# Check it by hand
# ----------------
# The derivative of tanh is :math:`1 - \tanh^2`. So row :math:`i` of the Jacobian is row :math:`i` of the weight, times
# the number :math:`1 - y_i^2`. We compare with this formula.

expected = (1 - predict(weight, bias, x) ** 2)[:, None] * weight
torch.testing.assert_close(J, expected)

# %%
# Next we write the loop. Each call gets one unit vector and returns one row.


def row_loop(weight, bias, x):
    """Compute one row in each call."""
    x = x.detach().requires_grad_()
    y = predict(weight, bias, x)
    units = torch.eye(len(y))
    rows = [torch.autograd.grad(y, x, unit, retain_graph=True)[0] for unit in units]
    return torch.stack(rows)


torch.testing.assert_close(row_loop(weight, bias, x), expected)

# %%
# Now the same without the loop. :func:`torch.func.vjp` evaluates the function and returns a second function, here
# ``pull_back``. For a vector :math:`u`, it runs one backward pass and returns :math:`u^T J` (a :term:`VJP`). If
# :math:`u` is a unit vector, this is one row of the Jacobian. :func:`torch.func.vmap` calls ``pull_back`` for all rows
# of the identity matrix at once (:term:`vmap`).

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
# Both programs do the same arithmetic, but in a different number of operations. We now count what one call of each
# method does. ``jacobian_loop`` is the loop. ``jacobian_reverse`` is ``vmap`` over the backward pass, and so is torch's
# ``jacrev``. ``jacobian_batched_grad`` runs ``torch.autograd.grad`` for all unit vectors at once, as
# ``is_grads_batched=True`` does. First we check that all five results are equal.

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
# Then we count. The counts are exact, because they involve no clock.

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

costs = count(recipes, weight, bias, x)
costs

# %%
# The matrix products need the same number of FLOPs (floating-point operations) in all five methods: one evaluation of
# the function, and one backward :term:`pass` for each row. The number of operations differs. An :term:`operation` is
# one computation on whole tensors, such as a product or a sum, and each one takes time to start.

costs.claim("jacobian_reverse", fewer_operations_than="jacobian_loop")

# %%
# Time
# ----
# ``compare`` calls each method once in each :term:`round`, in random order. So a slow moment of the machine affects all
# methods alike. The :term:`ratio` of two methods is computed within each round.

comparison = compare(recipes, weight, bias, x)
comparison

# %%
# The table shows the median time and its spread, the :term:`IQR`. The ratio is the time divided by that of the fastest
# method. Compare ``jacobian`` with the loop:

comparison.claim("jacobian", faster_than="jacobian_loop")

# %%
# At each call, ``jacobian`` first looks up which recipe it chose for arguments of these shapes. For a function as small
# as ours, this takes a visible part of the time. If you call the recipe by name, you save it:

comparison.claim("jacobian_batched_grad", faster_than="jacobian")

# %%
# ``jacobian_reverse`` has more overhead than ``jacobian_batched_grad``, because it starts ``vjp`` and ``vmap`` at each
# call. It should still be faster than the loop:

comparison.claim("jacobian_reverse", faster_than="jacobian_loop")

# %%
# More outputs
# ------------
# The loop makes one call for each output, so its time grows with the number of outputs. We keep 16 inputs and increase
# the number of outputs from 1 to 1024.

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
# The curve of the loop should rise from the beginning. The other curves should stay flat until the arithmetic takes
# longer than starting the operations. With many more outputs than inputs, ``jacobian`` computes columns instead of
# rows: see :doc:`/tutorials/jacobians/jacrev_against_jacfwd`.
#
# With one output there is only one row, so there is nothing to batch. We expect the loop to be faster than
# ``jacobian_reverse`` there, because the loop starts neither ``vjp`` nor ``vmap``:

study[1].claim("jacobian_loop", faster_than="jacobian_reverse")

# %%
# What goes wrong
# ---------------
# For some operations, torch's derivative is wrong if several vectors are passed at once. :func:`torch.cdist` is one of
# them: the first row of the Jacobian is right, the other rows are wrong, and no error is raised. We compare ``jacrev``
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
# :func:`funcdiff.jacobian` knows this fault and uses another recipe, so its result is right.

torch.testing.assert_close(jacobian(distances)(a), by_rows)
print("jacobian chose", explain(jacobian(distances), a).recipe)

# %%
# If you call ``jacobian_reverse`` or ``jacrev`` yourself, write the distance in simpler operations:


def distances_by_hand(a):
    return (a[:, None] - b).square().sum(-1).sqrt().flatten()


torch.testing.assert_close(jacobian_reverse(distances_by_hand)(a), by_rows)

# %%
# Takeaway
# --------
# Call :func:`funcdiff.jacobian` and do not loop. The exceptions are:
#
# * If the function has one output, you need its gradient, which is one row: :func:`torch.func.grad`.
# * If ``vmap`` does not support the backward pass of an operation, reverse mode works only in a loop. ``jacobian`` then
#   uses forward mode or the loop by itself.
# * If all rows do not fit in memory, set ``chunk_size``: see :doc:`/tutorials/batches/chunk_size`.
# * If you do not trust the result for some operation, compare it with :func:`funcdiff.jacobian_loop`.
