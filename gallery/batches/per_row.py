r"""
How do I get one Jacobian for each row of a batch?
==================================================

A function of one row, applied to a batch of :math:`B` rows, has a Jacobian for each row. Differentiating the batch as
a whole computes :math:`B^2` blocks to keep :math:`B`; a loop over the rows keeps those, and pays for each call.

**Answer:** write the function of one row and map its Jacobian: :func:`funcdiff.batch_jacobian`, and
:func:`funcdiff.batch_hessian` for second derivatives; ``in_dims`` says which axis of each argument is the batch.
"""

# %%
# The function
# ------------
# A layer :math:`f(x) = \tanh(Wx + b)` from 31 inputs to 33 outputs, and 64 rows. All rows share :math:`W` and
# :math:`b`. Neither size is round, so that no two axes can be taken for each other.

import torch
from torch.func import jacrev, vmap
from torch.nn.functional import linear


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


device = "cuda" if torch.cuda.is_available() else "cpu"
B, n, m = 64, 31, 33
weight, bias = torch.randn(m, n, device=device), torch.randn(m, device=device)
x = torch.randn(B, n, device=device)

# %%
# By hand
# -------
# Row :math:`b` of the batch has the Jacobian :math:`J_{bij} = (1 - y_{bi}^2)\, W_{ij}`. The transform of one row,
# ``jacrev``, becomes that of the batch by ``vmap``; ``in_dims`` has an entry for each argument: the weight and the
# bias are not batched, ``x`` is batched along axis 0.

y = predict(weight, bias, x)
expected = (1 - y**2)[:, :, None] * weight

by_hand = vmap(jacrev(predict, argnums=2), in_dims=(None, None, 0))
torch.testing.assert_close(by_hand(weight, bias, x), expected)
print(tuple(expected.shape))

# %%
# The recipes
# -----------
# The same in one name. The Hessian of a row is :math:`H_{bijk} = -2 y_{bi} (1 - y_{bi}^2) W_{ij} W_{ik}`.

from funcdiff import (
    batch_hessian,
    batch_jacobian,
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    jacobian_reverse,
)

batched = batch_jacobian(predict, argnums=2, in_dims=(None, None, 0))
torch.testing.assert_close(batched(weight, bias, x), expected)

curvature = torch.einsum("bi,ij,ik->bijk", -2 * y * (1 - y**2), weight, weight)
second = batch_hessian(predict, argnums=2, in_dims=(None, None, 0))
torch.testing.assert_close(second(weight, bias, x), curvature)
print(tuple(curvature.shape))

# %%
# Every form of ``in_dims``
# -------------------------
# An integer is the batch axis of that argument, and a negative one counts from the end. The axis is where *your*
# tensor has it; in the result the batch always comes first.

columns = x.T  # (31, 64): a row of the batch is a column
for axis in (1, -1):
    of_columns = batch_jacobian(predict, argnums=2, in_dims=(None, None, axis))
    torch.testing.assert_close(of_columns(weight, bias, columns), expected)

# %%
# ``None`` means shared, an integer batched, for any argument: with a bias of its own for every row we batch that too.
# One integer in place of the tuple stands for all arguments.

biases, weights = bias.expand(B, m), weight.expand(B, m, n)
own_bias = batch_jacobian(predict, argnums=2, in_dims=(None, 0, 0))
torch.testing.assert_close(own_bias(weight, biases, x), expected)

own_all = batch_jacobian(predict, argnums=2, in_dims=0)
torch.testing.assert_close(own_all(weights, biases, x), expected)

# %%
# Where an argument is a dictionary, a list or a tuple, its entry is either one for all of it, or nests like it.


def layer(parameters, x):
    return predict(parameters["weight"], parameters["bias"], x)


shared = batch_jacobian(layer, argnums=1, in_dims=(None, 0))
torch.testing.assert_close(shared({"weight": weight, "bias": bias}, x), expected)

nested = batch_jacobian(layer, argnums=1, in_dims=({"weight": None, "bias": 0}, 0))
torch.testing.assert_close(nested({"weight": weight, "bias": biases}, x), expected)

# %%
# Prediction
# ----------
# The Jacobian of the whole batch has the shape (64, 33, 64, 31). We count it against a loop over the rows and against
# the mapped Jacobian.

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

row_jacobian = jacobian_reverse(predict, argnums=2)


def row_loop(weight, bias, x):
    return torch.stack([row_jacobian(weight, bias, row) for row in x])


def whole_batch(weight, bias, x):
    """Differentiate everything by everything, and cut the blocks on the diagonal out."""
    return row_jacobian(weight, bias, x).diagonal(dim1=0, dim2=2).movedim(-1, 0)


candidates = {"batch_jacobian": batched, "loop over rows": row_loop, "whole batch": whole_batch}
costs = count(candidates, weight, bias, x)
costs

# %%
# The blocks between different rows are zeros, each of them computed and stored. Their share of the large array:

everything = row_jacobian(weight, bias, x)
between = everything.clone()
between.diagonal(dim1=0, dim2=2).zero_()
assert between.count_nonzero() == 0
print(f"{between.nbytes * (B - 1) // B:,} of {everything.nbytes:,} bytes hold zeros between rows")

# %%
costs.claim("batch_jacobian", fewer_flops_than="whole batch", by=B / 2)

# %%
costs.claim("batch_jacobian", smaller_peak_than="whole batch", by=B / 2)

# %%
# The loop has the arithmetic of the mapped Jacobian; it starts each operation once for every row.

costs.claim("batch_jacobian", fewer_operations_than="loop over rows", by=B / 2)

# %%
# Measurement
# -----------

times = compare(candidates, weight, bias, x, rounds=12)
times

# %%
times.claim("batch_jacobian", faster_than="loop over rows")

# %%
times.claim("batch_jacobian", faster_than="whole batch")

# %%
# How the gap grows with the batch
# --------------------------------
# The loop should grow as :math:`B`, the whole batch as :math:`B^2`. On a GPU, where a small kernel costs as much as a
# large one, the loop loses by more; each measurement here runs on the GPU if there is one.


def with_rows(rows):
    return candidates, (weight, bias, torch.randn(rows, n, device=device))


study = sweep(with_rows, [1, 4, 16, 64], label="rows B of the batch", rounds=12)
plot(study, title="The whole batch pays for pairs of rows, the loop for each row")

# %%
# Second derivatives
# ------------------
# ``batch_hessian`` chooses the recipe for the function and the number of rows. To use another recipe, pass it by name.
# Of the two compositions, forward over forward is the cheaper one here: a row has many outputs, and the unit tangents
# are the same for all rows, so that torch pushes them through :math:`W` once for the whole batch.

by_name = {"forward over reverse": hessian_forward_over_reverse, "forward over forward": hessian_forward_over_forward}
hessians = {"chosen": second} | {
    name: batch_hessian(predict, argnums=2, in_dims=(None, None, 0), hessian=recipe) for name, recipe in by_name.items()
}
second_costs = count(hessians, weight, bias, x)
second_costs

# %%
second_costs.claim("forward over forward", fewer_flops_than="forward over reverse")

# %%
second_costs.claim("chosen", fewer_flops_than="forward over forward")

# %%
# What breaks
# -----------
# A wrong ``in_dims`` is refused only where sizes differ. Leave the ``None`` out and torch complains that 33 is not 64.
# With a batch of 33 rows nothing is raised: row :math:`b` of ``x`` meets row :math:`b` of the weight.

wrong = batch_jacobian(predict, argnums=2, in_dims=0)
try:
    wrong(weight, bias, x)
except ValueError as error:
    print("ValueError --", error)

few = x[:m]
paired = wrong(weight, bias, few)
print("right:", tuple(batched(weight, bias, few).shape), "wrong:", tuple(paired.shape))
assert paired.shape == (m, n), "vmap has learnt to refuse this: update this section"

# %%
# And ``vmap`` takes the batch axis away, which some layers insist on, in evaluation mode too. Give it back as an axis
# of length one:

norm = torch.nn.BatchNorm1d(n, device=device).eval()
norm.requires_grad_(False)
try:
    batch_jacobian(norm)(x)
except ValueError as error:
    print("ValueError --", error)

scale = (norm.running_var + norm.eps).rsqrt()
one_row = batch_jacobian(lambda row: norm(row[None])[0])
torch.testing.assert_close(one_row(x), torch.diag(scale).expand(B, n, n))

# %%
# Takeaway
# --------
# Write the function of one row, map its derivative, and name the batch axis of each argument; check the shape of the
# result once, with sizes that all differ. The exceptions: a function that can only be called with the whole batch
# has the sum trick, if its rows are independent; and rows that do depend on each other have no Jacobian of their own,
# only that of the whole batch.
