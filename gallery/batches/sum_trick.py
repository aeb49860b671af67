r"""
May I differentiate the sum over a batch instead of each row?
=============================================================

A function takes the rows 1, 2 and 3 and squares each one. You want the derivative at each row. Add up the results:
:math:`1 + 4 + 9 = 14`. The gradient of this sum with respect to the three inputs is :math:`(2, 4, 6)`. These are the
three derivatives, and one backward pass computed them all.

This works because each row of the output depends only on the same row of the input. In the derivative of the sum with
respect to row :math:`b`, all other terms are constants:

.. math::

    \frac{\partial}{\partial x_b} \sum_c f(x_c) = \frac{\partial f(x_b)}{\partial x_b}.

If the rows influence each other, as with batch norm in training mode, the result is wrong, and torch raises no error.
So use the sum only for a function that accepts only a whole batch, or that ``vmap`` does not support, such as an LSTM:
``batch_jacobian`` would differentiate one sequence after the other, except for an LSTM in float32 on a CPU. If each row
has :math:`m` outputs, the sum needs :math:`m` backward passes.

**Answer:** Yes, if each row of the output depends only on the same row of the input. Call
``batch_jacobian_summed(F)(X)`` or ``batch_hessian_summed(F)(X)``, which test this condition and raise an error if it is
not met. If your function also works on a single row, prefer ``batch_jacobian(f)(X)``, which needs no such test.

.. code-block:: python

    import torch
    from funcdiff import batch_hessian_summed, batch_jacobian_summed

    jacobians = batch_jacobian_summed(F)(X)  # F maps the whole batch: (B, n) to (B, m)
    hessians = batch_hessian_summed(F)(X)  # (B, m, n, n)
    # The Jacobians in torch alone, without the test:
    jacobians = torch.func.jacrev(lambda X: F(X).sum(0))(X).movedim(1, 0)
"""

# %%
# Use it
# ------
# Our LSTM reads 5 sequences. Each has 6 steps with 3 numbers. The output at the last step has 4 numbers, and we
# differentiate it with respect to the whole sequence. :func:`funcdiff.module_function` turns the module into a function
# of its parameters and its input.

import torch

from funcdiff import (
    batch_hessian_summed,
    batch_jacobian,
    batch_jacobian_summed,
    jacobian_reverse,
    module_function,
)

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
lstm = torch.nn.LSTM(3, 4, batch_first=True).to(device, torch.float64)
run, parameters = module_function(lstm)
sequences = torch.randn(5, 6, 3, dtype=torch.float64, device=device)


def last_output(x):
    return run(parameters, x)[0][:, -1]


jacobians = batch_jacobian_summed(last_output)(sequences)
print(tuple(jacobians.shape))

# %%
# Each of the 5 sequences has its own Jacobian: 4 outputs, then 6 steps of 3 inputs. We compare with the Jacobian of the
# whole batch. It also contains the derivatives of each sequence with respect to the others, so it is five times as
# large. Its diagonal blocks are the Jacobians that we computed.

everything = jacobian_reverse(last_output)(sequences)
blocks = everything.diagonal(dim1=0, dim2=2).movedim(-1, 0)
torch.testing.assert_close(jacobians, blocks)

# %%
# Check it by hand
# ----------------
# For a closed form we use a layer :math:`f(x) = \tanh(Wx + b)` from 31 inputs to 33 outputs, on 64 rows. The Jacobian
# of the sum has the shape (33, 64, 31): output, row, input. We move the rows to the front and compare with the formula.

from torch.func import jacrev, vmap

B, n, m = 64, 31, 33
weight, bias = torch.randn(m, n, device=device), torch.randn(m, device=device)
x = torch.randn(B, n, device=device)


def predict(x):
    """Accept one row, (31,), or a batch, (64, 31)."""
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


def jacobian_of_sum(func, x):
    return jacrev(lambda x: func(x).sum(0))(x).movedim(1, 0)


y = predict(x)
expected = (1 - y**2)[:, :, None] * weight
torch.testing.assert_close(jacobian_of_sum(predict, x), expected)
torch.testing.assert_close(batch_jacobian_summed(predict)(x), expected)

# %%
# The function ``jacobian_of_sum`` again maps a batch to a batch, and its rows are independent. So we can differentiate
# the sum of its rows in the same way. This gives the Hessians,
# :math:`H_{bijk} = -2 y_{bi} (1 - y_{bi}^2)\, W_{ij} W_{ik}`.


def hessian_of_sum(func, x):
    return jacrev(lambda x: jacobian_of_sum(func, x).sum(0))(x).movedim(2, 0)


curvature = torch.einsum("bi,ij,ik->bijk", -2 * y * (1 - y**2), weight, weight)
torch.testing.assert_close(hessian_of_sum(predict, x), curvature)
torch.testing.assert_close(batch_hessian_summed(predict)(x), curvature)

# %%
# The condition
# -------------
# How does ``batch_jacobian_summed`` find out whether rows influence each other? It makes two more backward passes. A
# backward pass starts from a :term:`cotangent`, one weight for each output. The first pass uses the same cotangent in
# all rows. The second pass multiplies it by a factor for each row, for example by 2 in row 1 and by 3 in row 2. If the
# rows are independent, the derivatives at row 1 double, those at row 2 triple, and so on. You can run the test alone:

from funcdiff import check_batch_independence

leak = check_batch_independence(predict, x)
print(f"largest derivative between rows, relative to the largest of all: {leak:.1e}")

# %%
# Count
# -----
# The sum needs one forward pass and :math:`m` backward passes over the batch. ``vmap`` needs as many, so both need the
# same number of FLOPs. The test for independent rows adds two passes.
# ``batch_jacobian`` needs fewer FLOPs, because it chooses :term:`Taylor mode` (a form of forward mode) for this layer.

from funcdiff import batch_hessian
from funcdiff.measure import compare, count
from funcdiff.plots import plot

first = {
    "batch_jacobian": batch_jacobian(predict),
    "batch_jacobian_summed": batch_jacobian_summed(predict),
    "sum by hand": lambda x: jacobian_of_sum(predict, x),
    "vmap of jacrev": vmap(jacrev(predict)),
}
costs = count(first, x)
one_pass = 2 * B * m * n
assert costs["sum by hand"].flops == costs["vmap of jacrev"].flops == (m + 1) * one_pass
assert costs["batch_jacobian_summed"].flops == (m + 3) * one_pass
costs

# %%
# For Hessians by hand we used reverse mode twice, which needs a backward pass for each of the :math:`mn` entries of a
# row's Jacobian. :func:`funcdiff.batch_hessian_summed` differentiates the second time in forward mode instead, with a
# pass for each of the :math:`n` inputs. To save time, we count and time 16 of the rows.

second = {
    "batch_hessian": batch_hessian(predict),
    "batch_hessian_summed": batch_hessian_summed(predict),
    "sum by hand": lambda x: hessian_of_sum(predict, x),
}
few = x[:16]
second_costs = count(second, few)
second_costs

# %%
# ``batch_hessian_summed`` needs far fewer FLOPs than the version by hand.

second_costs.claim("batch_hessian_summed", fewer_flops_than="sum by hand", by=5)

# %%
# ``batch_hessian`` needs still fewer. It sees one row at a time, and chooses Taylor mode for this layer.

second_costs.claim("batch_hessian", fewer_flops_than="batch_hessian_summed", by=5)

# %%
# Time
# ----
# We time the Jacobians first. They need little arithmetic, so the number of operations and the test decide.

times = compare(first, x, rounds=15)
times

# %%
# We expect that the test for independent rows takes a visible part of the time:

times.claim("sum by hand", faster_than="batch_jacobian_summed")

# %%
# ``batch_jacobian`` needs no such test, so we expect it to be faster:

times.claim("batch_jacobian", faster_than="batch_jacobian_summed")

# %%
# We time the Hessians in the same way.

second_times = compare(second, few, rounds=12, budget=1.0)
slow = second_times.ratio("sum by hand", "batch_hessian_summed").median
lead = f"Reverse mode twice takes {slow:.3g} times as long as batch_hessian_summed"
plot(second_times, title=lead)

# %%
# Compare the version by hand with the others. With a function of one row, we expect ``batch_hessian`` to be fastest:

second_times.claim("batch_hessian", faster_than="batch_hessian_summed")

# %%
# What goes wrong
# ---------------
# ``vmap`` *does not support this LSTM.* An LSTM in float64 writes into tensors that it creates itself, and this raises
# an error under ``vmap``. An axis of length one for each row does not help. ``batch_jacobian`` notices the error. It
# then differentiates one row after the other.


def last_of_row(row):
    return last_output(row[None])[0]


torch.testing.assert_close(batch_jacobian(last_of_row)(sequences), jacobians)
try:
    vmap(jacrev(last_of_row))(sequences)
except RuntimeError as error:
    print("RuntimeError:", error)
else:
    raise AssertionError("vmap now supports an LSTM: update this section")

# %%
# *Batch norm in training mode mixes the rows.* It divides each row by the standard deviation of all rows. So each
# output depends on all rows, and the derivative of the sum is wrong. We compare it with the diagonal blocks of the
# whole batch's Jacobian. Then we call ``batch_jacobian_summed``, which raises an error.

layers = torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh()
mixing = torch.nn.Sequential(*layers, torch.nn.Linear(8, 2)).to(device, torch.float64)
train, state = module_function(mixing, training=True)
rows = torch.randn(16, 3, dtype=torch.float64, device=device)


def show(func, x):
    own = jacobian_reverse(func)(x).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    error, largest = (jacobian_of_sum(func, x) - own).abs().max(), own.abs().max()
    print(f"by hand: wrong by {error:.2f} (largest entry {largest:.2f}), no error")
    assert error > 0.01 * largest, "the sum is right on these rows: update this section"
    try:
        batch_jacobian_summed(func)(x)
    except ValueError as refusal:
        print("batch_jacobian_summed: ValueError:", refusal)
    else:
        raise AssertionError("expected an error for rows that mix")


show(lambda x: train(state, x), rows)

# %%
# *Attention between the rows of the batch mixes them, too.* Here the rows are the steps of one sequence.


def attention(x):
    return torch.softmax(x @ x.T / x.shape[-1] ** 0.5, dim=-1) @ x


show(attention, rows)

# %%
# ``vmap`` does not help with rows that mix. It gives the function one row without the batch axis, so
# ``x.mean(0)`` becomes the mean of the numbers in that row. For :math:`x - \bar x` we get three different results. Only
# the first one is the derivative of a row of the output with respect to the same row of the input.


def centred(x):
    return x - x.mean(0)


own = jacobian_reverse(centred)(rows)[0, :, 0]
mapped = vmap(jacrev(centred))(rows)[0]
by_sum = jacobian_of_sum(centred, rows)[0]
eye = torch.eye(3).to(own)
expected = (1 - 1 / 16) * eye, eye - 1 / 3, 0 * eye
torch.testing.assert_close((own, mapped, by_sum), expected)
print("whole batch:", own[0], "\nvmap:", mapped[0], "\nsum:", by_sum[0])

# %%
# Batch norm in evaluation mode uses its stored statistics. The rows are then independent, and both recipes agree.

evaluate, state = module_function(mixing.eval())
torch.testing.assert_close(
    batch_jacobian_summed(lambda x: evaluate(state, x))(rows),
    batch_jacobian(lambda row: evaluate(state, row[None])[0])(rows),
)

# %%
# Takeaway
# --------
# If the function works on one row, use ``batch_jacobian`` and ``batch_hessian``: a function that sees one row cannot
# mix rows. If it needs a whole batch, or ``vmap`` does not support it, use those with ``summed`` in their name.
#
# * If batch norm mixes the rows, call ``eval()`` first.
# * If the rows mix by design, as in attention, no row has a Jacobian of its own. Decide which of the :math:`B^2` blocks
#   you need, and differentiate the whole batch.
