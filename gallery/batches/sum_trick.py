r"""
May I differentiate the sum over a batch instead of each row?
=============================================================

Suppose each row of the output depends only on the same row of the input. Then the sum over the rows has the same
derivatives as the rows themselves, because every other term is a constant:

.. math::

    \frac{\partial}{\partial x_b} \sum_{b'} f(x_{b'})
    = \frac{\partial f(x_b)}{\partial x_b}.

For the rows 1, 2, 3 and :math:`f(x) = x^2`, the sum is 14. Its gradient is :math:`(2, 4, 6)`: three derivatives from
one backward pass. This helps if a function accepts only a whole batch, such as an LSTM.

**Answer:** Yes, if each row of the output depends only on the same row of the input. Call
``batch_jacobian_summed(F)(X)`` or ``batch_hessian_summed(F)(X)``: both test this condition, and raise an error if rows
influence each other. If your function also works on a single row, prefer ``batch_jacobian(f)(X)``.

.. code-block:: python

    from funcdiff import batch_hessian_summed, batch_jacobian_summed

    jacobians = batch_jacobian_summed(F)(X)  # F maps the whole batch: (B, n) to (B, m)
    hessians = batch_hessian_summed(F)(X)  # (B, m, n, n)
"""

# %%
# Use it
# ------
# Our LSTM reads 5 sequences of 6 steps with 3 numbers each. We differentiate its last output, 4 numbers, with respect
# to the sequence. :func:`funcdiff.module_function` turns the module into a function of its parameters and its input.

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
# The result has a Jacobian for each of the 5 sequences: 4 outputs, then 6 steps of 3 inputs. It equals the diagonal
# blocks of the Jacobian of the whole batch, which is much larger.

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
# The Jacobians are themselves a function of the batch with independent rows, so we can apply the same idea twice. This
# gives the Hessians, :math:`H_{bijk} = -2 y_{bi} (1 - y_{bi}^2)\, W_{ij} W_{ik}`.


def hessian_of_sum(func, x):
    return jacrev(lambda x: jacobian_of_sum(func, x).sum(0))(x).movedim(2, 0)


curvature = torch.einsum("bi,ij,ik->bijk", -2 * y * (1 - y**2), weight, weight)
torch.testing.assert_close(hessian_of_sum(predict, x), curvature)
torch.testing.assert_close(batch_hessian_summed(predict)(x), curvature)

# %%
# The condition
# -------------
# How can the recipe know that the rows are independent? It makes two more backward passes. The first starts from the
# same :term:`cotangent` (one weight for each output) in all rows. The second multiplies the cotangent by another factor
# in each row. If the rows are independent, the two results differ exactly by those factors. You can run the test alone:

from funcdiff import check_batch_independence

leak = check_batch_independence(predict, x)
print(f"largest derivative between rows, relative to the largest of all: {leak:.1e}")

# %%
# Count
# -----
# The sum and ``vmap`` both need one forward pass and :math:`m` backward passes over the batch, so they need the same
# number of FLOPs. The test costs two more passes. ``batch_jacobian`` needs fewer, because it chooses
# :term:`Taylor mode` for this layer.

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
# row's Jacobian. :func:`funcdiff.batch_hessian_summed` uses forward mode on the outside instead, with a pass for each
# of the :math:`n` inputs. To save time, we count and time 16 of the rows.

second = {
    "batch_hessian": batch_hessian(predict),
    "batch_hessian_summed": batch_hessian_summed(predict),
    "sum by hand": lambda x: hessian_of_sum(predict, x),
}
few = x[:16]
second_costs = count(second, few)
second_costs

# %%
# The recipe avoids most of the FLOPs of the version by hand.

second_costs.claim("batch_hessian_summed", fewer_flops_than="sum by hand", by=5)

# %%
# ``batch_hessian``, which sees one row at a time, avoids still more. For this layer it chooses Taylor mode.

second_costs.claim("batch_hessian", fewer_flops_than="batch_hessian_summed", by=5)

# %%
# Time
# ----
# We time the Jacobians first. With so little arithmetic, what differs is the overhead of the transforms and of the
# checks.

times = compare(first, x, rounds=15)
times

# %%
# We expect the test for independent rows to be visible on so small a function:

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
# Compare the version by hand with the other two. If there is a function of one row, we expect ``batch_hessian`` to be
# the fastest:

second_times.claim("batch_hessian", faster_than="batch_hessian_summed")

# %%
# What goes wrong
# ---------------
# ``vmap`` *of the LSTM* raises an error, even if each row gets a batch axis of length one. The LSTM works in place on
# tensors of its own, which ``vmap`` does not support. ``batch_jacobian`` then differentiates one row after the other.


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
# *Batch norm in training mode* divides each row by a spread that all rows share, so the sum contains derivatives of
# the other rows as well. We compare the sum with the diagonal blocks of the whole batch's Jacobian, and then call the
# recipe, which raises an error.

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
# *Attention between the rows of the batch* mixes them too: what looks like a batch is one sequence.


def attention(x):
    return torch.softmax(x @ x.T / x.shape[-1] ** 0.5, dim=-1) @ x


show(attention, rows)

# %%
# ``vmap`` does not help here. It removes the batch axis, so that ``x.mean(0)`` becomes the mean of a single row. For
# :math:`x - \bar x` we get three different answers, and only the first one is the derivative of a row of the batch with
# respect to that row.


def centred(x):
    return x - x.mean(0)


own = jacobian_reverse(centred)(rows)[0, :, 0]
mapped = vmap(jacrev(centred))(rows)[0]
by_sum = jacobian_of_sum(centred, rows)[0]
eye = torch.eye(3).to(own)
torch.testing.assert_close(own, (1 - 1 / 16) * eye)
torch.testing.assert_close(mapped, eye - 1 / 3)
torch.testing.assert_close(by_sum, 0 * eye)
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
# mix rows. If it accepts only a whole batch, use ``batch_jacobian_summed`` and ``batch_hessian_summed``.
#
# * If batch norm makes the rows mix, call ``eval()`` first.
# * If the rows mix by design, as in attention, no row has a Jacobian of its own. Decide which of the :math:`B^2` blocks
#   you need, and differentiate the whole batch.
