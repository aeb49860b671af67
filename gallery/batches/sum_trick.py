r"""
May I differentiate the sum over a batch instead of each row?
=============================================================

A function that only takes a whole batch has no rows to map over. Summed over the batch it has few outputs, and one
reverse pass for each of them gives the derivatives of all rows at once. On the wrong function the same lines return
wrong numbers, and nothing is raised.

**Answer:** yes, if the output of each row depends on that row of the input alone.
:func:`funcdiff.batch_jacobian_summed` and :func:`funcdiff.batch_hessian_summed` check that, and refuse otherwise.
"""

# %%
# The function
# ------------
# A layer :math:`f(x) = \tanh(Wx + b)` on a batch of 64 rows, with 31 inputs and 33 outputs.

import torch
from torch.func import jacrev, vmap
from torch.nn.functional import linear

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
B, n, m = 64, 31, 33
weight, bias = torch.randn(m, n, device=device), torch.randn(m, device=device)
x = torch.randn(B, n, device=device)


def predict(x):
    """Of one row, (31,) -> (33,), and of a batch of them, (64, 31) -> (64, 33)."""
    return torch.tanh(linear(x, weight, bias))


# %%
# By hand
# -------
# Row :math:`b'` of the output has no derivative by row :math:`b` of the input, unless they are the same row. Hence
# :math:`\partial \bigl(\sum_{b'} f_i(x_{b'})\bigr) / \partial x_{bj} = \partial f_i(x_b) / \partial x_{bj}`: the sum
# adds zeros. ``jacrev`` of the sum has the shape (33, 64, 31), and the batch is moved to the front.


def jacobian_of_sum(func, x):
    return jacrev(lambda x: func(x).sum(0))(x).movedim(1, 0)


y = predict(x)
expected = (1 - y**2)[:, :, None] * weight
torch.testing.assert_close(jacobian_of_sum(predict, x), expected)

# %%
# The Jacobians so computed are a function of the batch too, whose rows are as independent. So it works once more, and
# gives the Hessians, :math:`H_{bijk} = -2 y_{bi} (1 - y_{bi}^2) W_{ij} W_{ik}`.


def hessian_of_sum(func, x):
    return jacrev(lambda x: jacobian_of_sum(func, x).sum(0))(x).movedim(2, 0)


curvature = torch.einsum("bi,ij,ik->bijk", -2 * y * (1 - y**2), weight, weight)
torch.testing.assert_close(hessian_of_sum(predict, x), curvature)

# %%
# The recipes
# -----------
# They add the check. Two more reverse passes pull back one cotangent for all rows, and the same one with a weight of
# its own for every row; of independent rows the results differ by these weights, of others they do not.

from funcdiff import (
    batch_hessian,
    batch_hessian_summed,
    batch_jacobian,
    batch_jacobian_summed,
    check_batch_independence,
)

summed = batch_jacobian_summed(predict)
torch.testing.assert_close(summed(x), expected)
torch.testing.assert_close(batch_hessian_summed(predict)(x), curvature)

leak = check_batch_independence(predict, x)
print(f"largest derivative between rows: {leak:.1e} of the largest derivative")

# %%
# Prediction
# ----------
# One forward pass and :math:`m` reverse passes of the batch, for the sum as for the mapped Jacobian: the arithmetic
# must be equal, and the check adds two passes to the :math:`m`.

from funcdiff.measure import compare, count
from funcdiff.plots import plot

first = {
    "vmap by hand": vmap(jacrev(predict)),
    "batch_jacobian": batch_jacobian(predict),
    "sum by hand": lambda x: jacobian_of_sum(predict, x),
    "batch_jacobian_summed": summed,
}
costs = count(first, x)
one_pass = 2 * B * m * n
assert costs["sum by hand"].flops == costs["vmap by hand"].flops == (m + 1) * one_pass
assert costs["batch_jacobian_summed"].flops == (m + 3) * one_pass
costs

# %%
# For the Hessian we took reverse mode on the outside as well: a pass back for each of the :math:`mn` entries of a row.
# The recipe takes forward mode there, and pushes the same direction through all rows at once, :math:`n` passes. For
# the sake of the slow one we take 16 of the rows.

second = {
    "batch_hessian": batch_hessian(predict),
    "sum by hand": lambda x: hessian_of_sum(predict, x),
    "batch_hessian_summed": batch_hessian_summed(predict),
}
few = x[:16]
second_costs = count(second, few)
second_costs

# %%
second_costs.claim("batch_hessian_summed", fewer_flops_than="sum by hand", by=5)

# %%
# Measurement
# -----------
# With equal arithmetic what differs is the machinery around it: the sum runs the function itself outside ``vmap``,
# the recipes copy and check what they are given.

times = compare(first, x, rounds=15)
times

# %%
times.claim("sum by hand", faster_than="vmap by hand")

# %%
# What the check for independence costs, on a function as small as this one:

times.claim("batch_jacobian", faster_than="batch_jacobian_summed")

# %%
second_times = compare(second, few, rounds=12, budget=1.0)
second_times

# %%
second_times.claim("batch_hessian", faster_than="batch_hessian_summed")

# %%
plot(second_times, title="Reverse mode outside is the costly way")

# %%
# Where the sum is needed
# -----------------------
# An LSTM works in place, which ``vmap`` over its rows does not allow. As a function of the batch it can be summed.

from funcdiff import jacobian_reverse, module_function

lstm, state = module_function(torch.nn.LSTM(3, 4, batch_first=True).double().to(device))
sequences = torch.randn(5, 6, 3, dtype=torch.float64, device=device)


def last(x):
    return lstm(state, x)[0][:, -1]


try:
    batch_jacobian(lambda row: last(row[None])[0])(sequences)
except RuntimeError as error:
    print("RuntimeError --", error)
else:
    raise AssertionError("vmap has learnt to map an LSTM: update this section")

by_whole_batch = jacobian_reverse(last)(sequences).diagonal(dim1=0, dim2=2).movedim(-1, 0)
torch.testing.assert_close(batch_jacobian_summed(last)(sequences), by_whole_batch)

# %%
# What breaks
# -----------
# Batch norm in training mode divides each row by a spread that all rows share. The sum then holds the other rows'
# derivatives as well. We compare with the block of the whole batch's Jacobian that belongs to the row itself.

mixing = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
mixing = mixing.double().to(device)
train, parameters = module_function(mixing, training=True)
rows = torch.randn(16, 3, dtype=torch.float64, device=device)


def normalised(x):
    return train(parameters, x)


def show(func, x):
    """Print the error of the sum by hand, and what the recipe says to the same function."""
    own = jacobian_reverse(func)(x).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    error, largest = (jacobian_of_sum(func, x) - own).abs().max(), own.abs().max()
    print(f"by hand: wrong by up to {error:.2f}, entries up to {largest:.2f}, nothing raised")
    assert error > 0.01 * largest, "the sum has become right on rows that mix: update this section"
    try:
        batch_jacobian_summed(func)(x)
    except ValueError as refusal:
        print("ValueError --", refusal)
    else:
        raise AssertionError("expected the recipe to refuse rows that mix")


show(normalised, rows)

# %%
# Attention from row to row of the batch is the same fault: what is meant as a batch is one sequence.


def attention(x):
    return torch.softmax(x @ x.T / x.shape[-1] ** 0.5, dim=-1) @ x


show(attention, rows)

# %%
# ``vmap`` is no way out: it takes the batch axis away, and ``x.mean(0)`` becomes the mean of one row. Three answers
# for :math:`x - \bar x`, of which only the first is the derivative of a row of the batch by itself:


def centred(x):
    return x - x.mean(0)


own = jacobian_reverse(centred)(rows)[0, :, 0]
mapped = vmap(jacrev(centred))(rows)[0]
by_sum = jacobian_of_sum(centred, rows)[0]
torch.testing.assert_close(own, (1 - 1 / 16) * torch.eye(3).to(own))
torch.testing.assert_close(mapped, torch.eye(3).to(own) - 1 / 3)
torch.testing.assert_close(by_sum, torch.zeros(3, 3).to(own))
print("whole batch:", own[0], "\nvmap:", mapped[0], "\nsum:", by_sum[0])

# %%
# In evaluation mode batch norm takes its stored statistics, the rows are independent, and the recipe agrees with the
# mapped Jacobian:

mixing.eval()
evaluated, parameters = module_function(mixing)
torch.testing.assert_close(
    batch_jacobian_summed(lambda x: evaluated(parameters, x))(rows),
    batch_jacobian(lambda row: evaluated(parameters, row[None])[0])(rows),
)

# %%
# Takeaway
# --------
# Map the function of one row where there is one; it cannot mix rows, for it sees only one. Take the sum where
# ``vmap`` refuses the function, as it does the LSTM. The exception is a function whose rows mix: no trick gives a
# Jacobian by rows of it, and the question to ask is for which of the :math:`B^2` blocks.
