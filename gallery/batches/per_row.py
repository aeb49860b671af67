r"""
How do I get one Jacobian for each row of a batch?
==================================================

You have a function :math:`f` of one sample, such as a network, and a batch ``X`` whose rows are samples. For each row
you want its own Jacobian, :math:`J_b = \partial f(x_b) / \partial x_b`. For :math:`B` rows, :math:`n` inputs and
:math:`m` outputs, the result has the shape :math:`(B, m, n)`. If :math:`f` squares each entry, the Jacobian at the row
:math:`(1, 2)` is the diagonal matrix of :math:`(2, 4)`, and at :math:`(3, 4)` that of :math:`(6, 8)`.

The Jacobian of the whole batch is something else. It differentiates every row of the output with respect to every row
of the input, in the shape :math:`(B, m, B, n)`. For 64 rows it has 64 x 64 blocks. Only the 64 blocks on the diagonal
are wanted, and all others are zero.

**Answer:** Write the function for one row, and call ``batch_jacobian(f)(X)``. For second derivatives, call
``batch_hessian(f)(X)``.

.. code-block:: python

    from funcdiff import batch_hessian, batch_jacobian

    jacobians = batch_jacobian(f)(X)  # (B, outputs, inputs)
    hessians = batch_hessian(f)(X)  # (B, outputs, inputs, inputs)
"""

# %%
# Use it
# ------
# Our function is a layer :math:`f(x) = \tanh(Wx + b)` with 31 inputs and 33 outputs. It takes one row, of shape (31,),
# and returns one of shape (33,). We call both recipes with a batch of 64 rows.

import torch

from funcdiff import batch_hessian, batch_jacobian

device = "cuda" if torch.cuda.is_available() else "cpu"
B, n, m = 64, 31, 33  # all different, so that no axis can be mistaken for another
weight, bias = torch.randn(m, n, device=device), torch.randn(m, device=device)
x = torch.randn(B, n, device=device)


def f(x):
    return torch.tanh(weight @ x + bias)


first = batch_jacobian(f)
second = batch_hessian(f)
print("Jacobians:", tuple(first(x).shape))
print("Hessians:", tuple(second(x).shape))

# %%
# The batch comes first in the shape, then the output, then the input (twice for a Hessian). Both recipes chose Taylor
# mode, a form of forward mode. To use it always, without a choice, pass ``jacobian=jacobian_taylor`` or
# ``hessian=hessian_taylor``.
#
# Check it by hand
# ----------------
# With :math:`y = f(x)`, row :math:`b` has the Jacobian :math:`J_{bij} = (1 - y_{bi}^2)\, W_{ij}` and the Hessian
# :math:`H_{bijk} = -2 y_{bi} (1 - y_{bi}^2)\, W_{ij} W_{ik}`. We compare both with :func:`funcdiff.batch_jacobian` and
# :func:`funcdiff.batch_hessian`.

y = torch.tanh(x @ weight.T + bias)
expected = (1 - y**2)[:, :, None] * weight
torch.testing.assert_close(first(x), expected)

curvature = torch.einsum("bi,ij,ik->bijk", -2 * y * (1 - y**2), weight, weight)
torch.testing.assert_close(second(x), curvature)

# %%
# In torch alone you compose two transforms. ``jacrev`` differentiates the function of one row, and :term:`vmap` turns
# the result into a function of a batch. The Jacobians are equal.

from torch.func import jacrev, vmap

torch.testing.assert_close(vmap(jacrev(f))(x), expected)

# %%
# Several arguments: ``in_dims``
# ------------------------------
# Which arguments are batches, and with respect to which one do you differentiate? ``in_dims`` answers the first
# question: for each argument, the axis that counts the rows, or ``None`` if all rows share it. ``argnums`` answers the
# second one. The names are those of ``vmap`` and ``jacrev``.


def predict(weight, bias, x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


shared = {"argnums": 2, "in_dims": (None, None, 0)}
torch.testing.assert_close(batch_jacobian(predict, **shared)(weight, bias, x), expected)

by_hand = vmap(jacrev(predict, argnums=2), in_dims=(None, None, 0))
torch.testing.assert_close(by_hand(weight, bias, x), expected)

# %%
# A negative axis counts from the end. If your batch is stored in columns, name axis 1 or -1; the batch is still the
# first axis of the result.

columns = x.T  # (31, 64)
for axis in (1, -1):
    of_columns = batch_jacobian(predict, argnums=2, in_dims=(None, None, axis))
    torch.testing.assert_close(of_columns(weight, bias, columns), expected)

# %%
# Any argument can be a batch. Below, every row first has its own bias, then its own weight as well. A single number
# instead of a tuple applies to all arguments.

biases, weights = bias.expand(B, m), weight.expand(B, m, n)
own_bias = batch_jacobian(predict, argnums=2, in_dims=(None, 0, 0))
torch.testing.assert_close(own_bias(weight, biases, x), expected)

own_all = batch_jacobian(predict, argnums=2, in_dims=0)
torch.testing.assert_close(own_all(weights, biases, x), expected)

# %%
# An argument may be a :term:`pytree`: a dictionary, list or tuple of tensors. Its entry in ``in_dims`` is then one
# value for all its tensors, or a structure of the same form.


def layer(parameters, x):
    return predict(parameters["weight"], parameters["bias"], x)


one_value = batch_jacobian(layer, argnums=1, in_dims=(None, 0))
result = one_value({"weight": weight, "bias": bias}, x)
torch.testing.assert_close(result, expected)

nested = batch_jacobian(layer, argnums=1, in_dims=({"weight": None, "bias": 0}, 0))
result = nested({"weight": weight, "bias": biases}, x)
torch.testing.assert_close(result, expected)

# %%
# Count
# -----
# How much work does each method do? We count four: ``batch_jacobian``, ``vmap`` of ``jacrev``, a loop over the rows,
# and the Jacobian of the whole batch, from which we keep the diagonal blocks.

from funcdiff import jacobian_reverse, jacobian_taylor
from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

of_row = jacobian_reverse(f)
of_batch = jacobian_reverse(lambda x: predict(weight, bias, x))

candidates = {
    "batch_jacobian": first,
    "vmap of jacrev": vmap(jacrev(f)),
    "loop over rows": lambda x: torch.stack([of_row(row) for row in x]),
    "whole batch": lambda x: of_batch(x).diagonal(dim1=0, dim2=2).movedim(-1, 0),
}
costs = count(candidates, x)
costs

# %%
# The recipe needs the fewest FLOPs. It chose :term:`Taylor mode`, which carries a unit :term:`tangent` for each input
# along with the values. The unit tangents are the same for all rows, so they are multiplied by :math:`W` only once.

taylor = batch_jacobian(f, jacobian=jacobian_taylor)
assert count(taylor, x) == costs["batch_jacobian"]
assert costs["batch_jacobian"].flops == 2 * m * n * (B + n)
costs.claim("batch_jacobian", fewer_flops_than="vmap of jacrev", by=10)

# %%
# The loop does the same arithmetic as ``vmap`` of ``jacrev``, but it starts each :term:`operation` once for every row.

assert costs["loop over rows"].flops == costs["vmap of jacrev"].flops
costs.claim("batch_jacobian", fewer_operations_than="loop over rows", by=B / 2)

# %%
# The Jacobian of the whole batch has the shape (64, 33, 64, 31). Its blocks between different rows are zero, and torch
# computes and stores every one of them.

everything = of_batch(x)
between = everything.clone()
between.diagonal(dim1=0, dim2=2).zero_()
assert between.count_nonzero() == 0
print(f"{1 - 1 / B:.1%} of {everything.nbytes:,} bytes are zeros between rows")
costs.claim("batch_jacobian", smaller_peak_than="whole batch", by=B / 2)

# %%
# Time
# ----
# Less work should take less time. We time the four methods side by side.

times = compare(candidates, x, rounds=12)
times

# %%
# This is how the recipe compares with the loop:

times.claim("batch_jacobian", faster_than="loop over rows")

# %%
# This is how it compares with the whole batch:

times.claim("batch_jacobian", faster_than="whole batch")

# %%
# Against ``vmap`` of ``jacrev`` the recipe saves FLOPs, but so small a layer spends little of its time on them. This
# run shows whether the saving matters:

times.claim("batch_jacobian", faster_than="vmap of jacrev")

# %%
# Next we vary the number of rows. We expect the time of the loop to grow with :math:`B`, and that of the whole batch
# with :math:`B^2`. On a GPU, where even a small operation costs a fixed time to start, the loop loses by more.


def with_rows(rows):
    return candidates, (torch.randn(rows, n, device=device),)


study = sweep(with_rows, [1, 4, 16, 64], label="rows B of the batch", rounds=12)
growth = {n: f"{study[64][n].median / study[4][n].median:.3g}" for n in study.names}
title = (
    f"From 4 to 64 rows the loop takes {growth['loop over rows']} times as long, "
    f"the whole batch {growth['whole batch']} times, "
    f"batch_jacobian {growth['batch_jacobian']} times"
)
plot(study, title=title)

# %%
# Compare the slopes. The loop and the whole batch do more work with every row. The two other methods start the same
# operations for any number of rows, so their lines are flatter. With a single row there is nothing to batch, and this
# is the ranking:

ranking = sorted(study[1], key=lambda name: study[1][name].median)
print("with one row, fastest first:", ", ".join(ranking))

# %%
# Second derivatives
# ------------------
# One row has a Hessian of shape (33, 31, 31): a matrix for each output. :func:`funcdiff.batch_hessian` computes one for
# each row, by Taylor mode as well. We compare it with two compositions, passed by name.

from funcdiff import hessian_forward_over_forward, hessian_forward_over_reverse

hessians = {"batch_hessian": second}
for recipe in (hessian_forward_over_forward, hessian_forward_over_reverse):
    hessians[recipe.__name__] = batch_hessian(f, hessian=recipe)
second_times = compare(hessians, x, rounds=8, costs=True)
second_times

# %%
# Forward over reverse is ``torch.func.hessian``. It needs a backward pass for each of the 33 outputs of each row, and
# so far more FLOPs than the two methods whose tangents all rows share.

second_costs = count(hessians, x)
reverse = "hessian_forward_over_reverse"
second_costs.claim("batch_hessian", fewer_flops_than=reverse, by=100)

# %%
# All methods write the same large result, so the difference in time can be much smaller:

second_times.claim("batch_hessian", faster_than=reverse)

# %%
# What goes wrong
# ---------------
# *A wrong* ``in_dims`` *raises an error only if the sizes differ.* If we forget the ``None``, torch complains that 33
# is not 64. With a batch of 33 rows no error is raised: row :math:`b` of ``x`` is paired with row :math:`b` of the
# weight, and only the shape of the result shows it.

wrong = batch_jacobian(predict, argnums=2, in_dims=0)
try:
    wrong(weight, bias, x)
except ValueError as error:
    print("ValueError:", error)

few = x[:m]
paired = wrong(weight, bias, few)
print("right shape:", tuple(batch_jacobian(predict, **shared)(weight, bias, few).shape))
print("wrong shape:", tuple(paired.shape))
assert paired.shape == (m, n), "vmap now refuses this: update this section"

# %%
# *Some layers insist on a batch axis*, which ``vmap`` removes. Give each row an axis of length one, and remove it from
# the output. The Jacobian of batch norm in evaluation mode is a diagonal matrix, the same for each row.

norm = torch.nn.BatchNorm1d(n, device=device).eval().requires_grad_(False)
try:
    batch_jacobian(norm)(x)
except ValueError as error:
    print("ValueError:", error)

one_row = batch_jacobian(lambda row: norm(row[None])[0])
scale = (norm.running_var + norm.eps).rsqrt()
torch.testing.assert_close(one_row(x), torch.diag(scale).expand(B, n, n))

# %%
# Takeaway
# --------
# Write the function for one row, and call ``batch_jacobian(f)(X)`` or ``batch_hessian(f)(X)``. If some arguments are
# shared by all rows, say so with ``in_dims``, and check the shape of the result once, with sizes that all differ.
#
# * If the function accepts only a whole batch and its rows are independent, use
#   :func:`funcdiff.batch_jacobian_summed` (:doc:`/tutorials/batches/sum_trick`).
# * If the rows depend on each other, no row has a Jacobian of its own: differentiate the whole batch.
# * If the results of all rows do not fit in memory, add ``chunk_size`` (:doc:`/tutorials/batches/chunk_size`).
# * For images and ``Flatten``, pass ``lambda x: net(x[None])[0]``: the result has the shape (B, m, C, H, W).
