r"""
How do I get one Jacobian for each row of a batch?
==================================================

You have a function :math:`f` of one sample, such as a network, and a batch ``X`` with one sample in each row. You want
the Jacobian of :math:`f` at each row. Suppose :math:`f` squares each entry, and ``X`` has the rows :math:`(1, 2)` and
:math:`(3, 4)`. Then you want two Jacobians:

.. math::

    J_1 = \begin{pmatrix} 2 & 0 \\ 0 & 4 \end{pmatrix}, \qquad
    J_2 = \begin{pmatrix} 6 & 0 \\ 0 & 8 \end{pmatrix}.

For :math:`B` rows, :math:`n` inputs and :math:`m` outputs, the result has the shape :math:`(B, m, n)`. Do not
differentiate the whole batch at once. Its Jacobian has the shape :math:`(B, m, B, n)`, because it also contains the
derivatives of each row with respect to all other rows. If the rows are independent, these are all zero.

**Answer:** Write the function for one row, and call ``batch_jacobian(f)(X)``. For second derivatives, call
``batch_hessian(f)(X)``.

.. code-block:: python

    import torch
    from funcdiff import batch_hessian, batch_jacobian

    X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    jacobians = batch_jacobian(torch.square)(X)  # (2, 2, 2): row, output, input
    hessians = batch_hessian(torch.square)(X)  # (2, 2, 2, 2): row, output, input, input
    torch.func.vmap(torch.func.jacrev(torch.square))(X)  # the Jacobians in torch alone
"""

# %%
# Use it
# ------
# Our function is a layer :math:`f(x) = \tanh(Wx + b)` with 31 inputs and 33 outputs. It takes one row of shape (31,).
# We call both functions with a batch of 64 rows.

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
# The first axis of each result counts the rows. The next axis is the output, and then comes the input (twice for a
# Hessian).
#
# Check it by hand
# ----------------
# With :math:`y = f(x)`, row :math:`b` has the Jacobian :math:`J_{bij} = (1 - y_{bi}^2)\, W_{ij}` and the Hessian
# :math:`H_{bijk} = -2 y_{bi} (1 - y_{bi}^2)\, W_{ij} W_{ik}`. Both results agree with these formulas.

y = torch.tanh(x @ weight.T + bias)
expected = (1 - y**2)[:, :, None] * weight
torch.testing.assert_close(first(x), expected)

curvature = torch.einsum("bi,ij,ik->bijk", -2 * y * (1 - y**2), weight, weight)
torch.testing.assert_close(second(x), curvature)

# %%
# In torch alone you combine two functions. ``jacrev(f)`` returns the Jacobian for one row. :term:`vmap` then turns this
# function of one row into a function of a batch. The Jacobians are equal.

from torch.func import grad, jacrev, vmap

torch.testing.assert_close(vmap(jacrev(f))(x), expected)

# %%
# Several arguments: ``in_dims``
# ------------------------------
# A function can have more arguments than ``x``. In the code below, all rows share ``weight`` and ``bias``, and only
# ``x`` is a batch. You say so with ``in_dims``, which has one entry for each argument: ``None`` if all rows share the
# argument, and otherwise the axis that counts the rows. ``argnums=2`` means that we differentiate with respect to
# argument 2, which is ``x``. ``vmap`` and ``jacrev`` have the same options.


def predict(weight, bias, x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


shared = {"argnums": 2, "in_dims": (None, None, 0)}
torch.testing.assert_close(batch_jacobian(predict, **shared)(weight, bias, x), expected)
by_hand = vmap(jacrev(predict, argnums=2), in_dims=(None, None, 0))
torch.testing.assert_close(by_hand(weight, bias, x), expected)

# %%
# Any argument can be a batch, and the batch can be on any axis. A single number applies to all arguments. If an
# argument is a dictionary, its entry is one value for all its tensors, or a dictionary of the same form.

each = batch_jacobian(predict, argnums=2, in_dims=(None, 0, -1))  # a bias for each row
torch.testing.assert_close(each(weight, bias.expand(B, m), x.T), expected)

# %%
# Per-sample gradients
# --------------------
# ``backward()`` on the mean loss of a batch gives one gradient: the mean over the samples. Sometimes you need the
# gradient of each sample, for example to limit the length of each one in differentially private training. Write the
# loss of one sample. ``grad`` differentiates it with respect to the parameters, and ``vmap`` does so for each sample.

from funcdiff import module_function

model, parameters = module_function(torch.nn.Linear(n, 1, device=device))
targets = torch.randn(B, 1, device=device)


def loss(parameters, x, target):
    return (model(parameters, x) - target).square().sum()


of_samples = vmap(grad(loss), in_dims=(None, 0, 0))
per_sample = of_samples(parameters, x, targets)
print({name: tuple(gradient.shape) for name, gradient in per_sample.items()})

# %%
# The parameters are a dictionary, and so are the gradients. Each has the shape of its parameter, with an axis for the
# 64 samples in front. For one sample, the gradient of :math:`(w^T x + b - t)^2` with respect to :math:`w` is
# :math:`2 (w^T x + b - t)\, x`.

residual = model(parameters, x) - targets
torch.testing.assert_close(per_sample["weight"][:, 0], 2 * residual * x)

# %%
# Without ``vmap`` you would write a loop over the samples. We compare the two methods in time and memory.

from funcdiff.measure import compare, count, sweep


def loop(parameters, x, targets):
    each = [grad(loss)(parameters, *sample) for sample in zip(x, targets, strict=True)]
    return {name: torch.stack([one[name] for one in each]) for name in parameters}


gradients = {"vmap": of_samples, "loop": loop}
losses = compare(gradients, parameters, x, targets, rounds=8, costs=True)
losses

# %%
# The loop stores all gradients twice, one by one and stacked. With large intermediate results, ``vmap`` needs more
# memory, because it stores the results of all samples at once: then pass ``chunk_size``. The loop starts each
# :term:`operation` once for every sample, so we expect ``vmap`` to be faster:

losses.claim("vmap", faster_than="loop", by=B / 8)

# %%
# Count
# -----
# How much work does each method do? We compare ``batch_jacobian`` with three others: ``vmap`` of ``jacrev``, a loop
# over the rows, and the Jacobian of the whole batch, of which we keep the blocks on the diagonal.

from funcdiff import jacobian_reverse, jacobian_taylor
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
# ``batch_jacobian`` needs the fewest FLOPs. It chose :term:`Taylor mode`, which carries a direction for each input (a
# unit :term:`tangent`) through the function together with the values. The directions are the same for all rows, so they
# are multiplied by :math:`W` only once. To use this mode always, pass ``jacobian=jacobian_taylor``.

taylor = batch_jacobian(f, jacobian=jacobian_taylor)
assert count(taylor, x) == costs["batch_jacobian"]
assert costs["batch_jacobian"].flops == 2 * m * n * (B + n)
costs.claim("batch_jacobian", fewer_flops_than="vmap of jacrev", by=10)

# %%
# The loop does the arithmetic of ``vmap`` of ``jacrev``, but it starts each operation once for every row.

costs.claim("batch_jacobian", fewer_operations_than="loop over rows", by=B / 2)

# %%
# The Jacobian of the whole batch has the shape (64, 33, 64, 31). Its blocks between different rows are zero, and torch
# computes and stores every one of them.

between = of_batch(x)
between.diagonal(dim1=0, dim2=2).zero_()
assert between.count_nonzero() == 0
print(f"{1 - 1 / B:.1%} of {between.nbytes:,} bytes are zeros between rows")
costs.claim("batch_jacobian", smaller_peak_than="whole batch", by=B / 2)

# %%
# Time
# ----
# Does less arithmetic take less time here? We time the four methods. On a busy machine the intervals are wide.

times = compare(candidates, x, rounds=20)
times

# %%
# ``vmap`` of ``jacrev`` needs more FLOPs than ``batch_jacobian``. For a layer as small as ours, FLOPs are a small part
# of the time, so it can be as fast. We recommend ``batch_jacobian`` because it also checks its first result, and works
# if ``vmap`` does not support an operation. This run shows whether the saved FLOPs matter:

times.claim("batch_jacobian", faster_than="vmap of jacrev")

# %%
# Next we vary the number of rows :math:`B`. We expect the time of the loop to grow with :math:`B`, and the time for the
# whole batch with :math:`B^2`. On a GPU each operation takes a fixed time to start, so the loop loses by more there.


def with_rows(rows):
    return candidates, (torch.randn(rows, n, device=device),)


study = sweep(with_rows, [1, 4, 16, 64], label="rows B of the batch", rounds=12)
growth = {n: f"{study[64][n].median / study[4][n].median:.3g}" for n in study.names}
title = (
    f"From 4 to 64 rows the loop takes {growth['loop over rows']} times as long, the "
    f"whole batch {growth['whole batch']}, batch_jacobian {growth['batch_jacobian']}"
)
plot(study, title=title)

# %%
# From 4 to 64 rows, the loop does 16 times as much arithmetic, and the whole batch :math:`16^2 = 256` times as much.
# The measured factors can differ from these. Starting operations also takes time, and on a busy machine the times
# scatter.
#
# Second derivatives
# ------------------
# At one row, each of the 33 outputs has a Hessian of shape (31, 31), so the result for one row has the shape (33, 31,
# 31). :func:`funcdiff.batch_hessian` chooses Taylor mode again. We compare it with two other methods. Each
# differentiates twice. Its name says in which modes, the outer one first.

from funcdiff import hessian_forward_over_forward, hessian_forward_over_reverse

recipes = (hessian_forward_over_forward, hessian_forward_over_reverse)
hessians = {recipe.__name__: batch_hessian(f, hessian=recipe) for recipe in recipes}
hessians["batch_hessian"] = second
compare(hessians, x, rounds=8, costs=True)

# %%
# Forward over reverse is the method of ``torch.func.hessian``. It needs a backward pass for each of the 33 outputs of
# each row. The two other methods use tangents that all rows share, so they need far fewer FLOPs.

reverse = "hessian_forward_over_reverse"
count(hessians, x).claim("batch_hessian", fewer_flops_than=reverse, by=100)

# %%
# What goes wrong
# ---------------
# *A wrong* ``in_dims`` *raises an error only if the sizes differ.* Suppose we pass 0, which splits weight and bias into
# rows, too. They have 33 rows and the batch 64, so torch raises an error. With a batch of 33 rows there is no error:
# row 5 of ``x`` meets row 5 of the weight only. You notice it by the shape of the result.

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
# *Some layers require a batch axis.* ``vmap`` removes it, so they raise an error. Add an axis of length one to
# each row, and remove it from the output. In evaluation mode, batch norm multiplies each entry by a number. Its
# Jacobian is therefore a diagonal matrix, the same for each row.

norm = torch.nn.BatchNorm1d(n, device=device).eval().requires_grad_(False)
one_row = batch_jacobian(lambda row: norm(row[None])[0])
scale = (norm.running_var + norm.eps).rsqrt()
torch.testing.assert_close(one_row(x), torch.diag(scale).expand(B, n, n))

# %%
# Takeaway
# --------
# Write the function for one row, and call ``batch_jacobian(f)(X)`` or ``batch_hessian(f)(X)``. If all rows share an
# argument, its entry in ``in_dims`` is ``None``. Check the shape of the result once, with sizes that all differ.
#
# * If the function accepts only a whole batch and its rows are independent, use :func:`funcdiff.batch_jacobian_summed`
#   (:doc:`/tutorials/batches/sum_trick`).
# * If the rows depend on each other, no row has a Jacobian of its own: differentiate the whole batch.
# * If the results of all rows do not fit in memory, add ``chunk_size`` (:doc:`/tutorials/batches/chunk_size`).
# * For images and ``Flatten``, pass ``lambda x: net(x[None])[0]``: the result has the shape (B, m, C, H, W).
