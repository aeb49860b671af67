r"""
Which of torch's six ways to compute a Jacobian should I use?
=============================================================

All six return the same Jacobian. They differ in two choices. The mode is the first: :term:`reverse mode` computes the
rows of the Jacobian, and :term:`forward mode` computes its columns. The second choice is between a loop, with one row
or column in each turn, and a batch of all of them.

For 16 inputs and 1024 outputs the Jacobian has 1024 rows and 16 columns. A loop in reverse mode makes 1024 calls. A
batch in forward mode makes one call for all 16 columns.

**Answer:** Choose the mode that has less to compute, and batch. :func:`funcdiff.jacobian` does both: it uses forward
mode if there are many more outputs than inputs, and reverse mode otherwise.

.. code-block:: python

    from funcdiff import jacobian

    J = jacobian(func)(x)  # shape: that of the output, then that of x
"""

# %%
# Use it
# ------
# Our function is an affine map, :math:`f(x) = Wx + b`. We compute its Jacobian for 16 inputs and 1024 outputs, then for
# 1024 inputs and 16 outputs, and print the shape and the chosen :term:`recipe`.

import torch
from torch.nn.functional import linear

from funcdiff import explain, jacobian

device = "cuda" if torch.cuda.is_available() else "cpu"


def predict(weight, bias, x):
    return linear(x, weight, bias)


def layer(inputs, outputs):
    shapes = (outputs, inputs), (outputs,), (inputs,)
    return tuple(torch.randn(shape, device=device) for shape in shapes)


tall, wide = layer(16, 1024), layer(1024, 16)
automatic = jacobian(predict, argnums=2)
for args in (tall, wide):
    print(tuple(automatic(*args).shape), explain(automatic, *args).recipe)

# %%
# Check it by hand
# ----------------
# The Jacobian of :math:`Wx + b` is the weight :math:`W`, so every method can be checked exactly.

for weight, bias, x in (tall, wide):
    torch.testing.assert_close(automatic(weight, bias, x), weight)

# %%
# Three interfaces in reverse mode
# --------------------------------
# Reverse mode computes rows. You can loop over ``torch.autograd.grad``, call :func:`torch.func.vjp` for all rows at
# once by :term:`vmap`, or let :func:`torch.func.jacrev` do the same in one call.

from torch.func import jacfwd, jacrev, jvp, vjp, vmap


def grad_loop(weight, bias, x):
    x = x.detach().requires_grad_()
    y = predict(weight, bias, x)
    units = torch.eye(len(y), device=x.device)
    rows = [torch.autograd.grad(y, x, unit, retain_graph=True)[0] for unit in units]
    return torch.stack(rows)


def vmap_over_vjp(weight, bias, x):
    y, pull_back = vjp(lambda x: predict(weight, bias, x), x)
    return vmap(pull_back)(torch.eye(len(y), device=x.device))[0]


reverse = {"grad_loop": grad_loop, "vmap_over_vjp": vmap_over_vjp}
reverse["jacrev"] = jacrev(predict, argnums=2)

# %%
# Three interfaces in forward mode
# --------------------------------
# Forward mode computes columns. You can loop over dual numbers, which carry their derivative in one direction, a
# :term:`tangent`, through the function. You can loop over :func:`torch.func.jvp`, or call :func:`torch.func.jacfwd`.

import torch.autograd.forward_ad as forward_ad


def dual_loop(weight, bias, x):
    columns = []
    for unit in torch.eye(len(x), device=x.device):
        with forward_ad.dual_level():
            y = predict(weight, bias, forward_ad.make_dual(x, unit))
            columns.append(forward_ad.unpack_dual(y).tangent)
    return torch.stack(columns, dim=1)


def jvp_loop(weight, bias, x):
    def column(unit):
        return jvp(lambda x: predict(weight, bias, x), (x,), (unit,))[1]

    return torch.stack([column(unit) for unit in torch.eye(len(x), device=device)], 1)


forward = {"dual_loop": dual_loop, "jvp_loop": jvp_loop}
forward["jacfwd"] = jacfwd(predict, argnums=2)

# %%
# All six must equal the weight.

interfaces = {**reverse, **forward}
for method in interfaces.values():
    torch.testing.assert_close(method(*tall), tall[0])
    torch.testing.assert_close(method(*wide), wide[0])

# %%
# The sum of the rows
# -------------------
# ``backward`` with a gradient of ones computes the sum of all rows in one pass: the gradient of the sum of the outputs.
# So it can check a Jacobian.

weight, bias, x = tall
leaf = x.clone().requires_grad_()
y = predict(weight, bias, leaf)
y.backward(gradient=torch.ones_like(y))
torch.testing.assert_close(leaf.grad, automatic(*tall).sum(0), rtol=1e-4, atol=1e-4)

# %%
# If you need only this sum, or the gradient of a function with one output, do not compute a Jacobian. We count both.

from funcdiff import jacobian_reverse
from funcdiff.measure import compare, count
from funcdiff.plots import plot

gradients = {
    "gradient of the sum": torch.func.grad(lambda *a: predict(*a).sum(), argnums=2),
    "sum of the rows": lambda *a: jacobian_reverse(predict, argnums=2)(*a).sum(0),
}
costs = count(gradients, *tall)
costs.claim("gradient of the sum", fewer_flops_than="sum of the rows", by=100)

# %%
# Count
# -----
# One :term:`pass` takes :math:`mn` multiply-adds in either mode. For 16 inputs and 1024 outputs, forward mode makes 16
# passes and reverse mode makes 1024. We count all six interfaces and the automatic recipe.

methods = {"jacobian": automatic, **interfaces}
costs = count(methods, *tall)
costs

# %%
# The mode determines the FLOPs (floating-point operations). A loop multiplies the number of calls into torch's library.
# Each is an :term:`operation` and takes time to start. ``dual_loop`` needs more FLOPs than ``jacfwd``, because it
# evaluates the function again in each turn.

costs.claim("jacfwd", fewer_flops_than="jacrev", by=30)

# %%
# In reverse mode, the batched interface starts far fewer operations than the loop:

costs.claim("jacrev", fewer_operations_than="grad_loop", by=100)

# %%
# Time
# ----
# The mode with fewer passes should be faster, and a batch faster than a loop. First the tall case, with 16 inputs and
# 1024 outputs. A candidate whose call takes longer than the ``budget`` is called once.

tall_times = compare(methods, *tall, rounds=9, budget=0.1)
tall_times

# %%
# The ratio says how many times as long as the fastest candidate each takes. The batched interfaces of forward mode
# should be among the first, and the loop of the wrong mode far behind:

tall_times.claim("jacfwd", faster_than="grad_loop")

# %%
# Next the wide case, with 1024 inputs and 16 outputs.

wide_times = compare(methods, *wide, rounds=9, budget=0.1)
wide_times

# %%
# Now reverse mode is the right one:

wide_times.claim("jacrev", faster_than="jvp_loop")

# %%
# The same times as a figure, on a logarithmic axis:

slow = wide_times["jvp_loop"].median / wide_times["jacobian"].median
title = f"1024 inputs, 16 outputs: a loop in the wrong mode takes {slow:.0f}× as long"
plot(wide_times, title=title)

# %%
# Compare the order with the counts. We expect reverse mode to be ahead of forward mode, and in each mode the batched
# interfaces to be ahead of the loops.
#
# Ten times the size
# ------------------
# With 10240 in place of 1024, we leave out the loop in the wrong mode. We time ``jacobian``, the two recipes that it
# chooses between, and the loops of the right mode. First 16 inputs and 10240 outputs:

from funcdiff import jacobian_batched_grad, jacobian_taylor

recipes = {
    "jacobian": automatic,
    "jacobian_batched_grad": jacobian_batched_grad(predict, argnums=2),
    "jacobian_taylor": jacobian_taylor(predict, argnums=2),
}
methods = {**recipes, "dual_loop": dual_loop, "jvp_loop": jvp_loop}
times = compare(methods, *layer(16, 10240), rounds=9, budget=0.5)
times

# %%
# A loop makes 16 calls here, and reverse mode makes 10240 passes. A loop in the right mode should therefore win:

times.claim("dual_loop", faster_than="jacobian_batched_grad")

# %%
# Then 10240 inputs and 16 outputs:

methods = {**recipes, "grad_loop": grad_loop}
times = compare(methods, *layer(10240, 16), rounds=9, budget=0.5)
times

# %%
# Here the loop is in reverse mode, and forward mode makes the 10240 passes:

times.claim("grad_loop", faster_than="jacobian_taylor")

# %%
# A batch of 4
# ------------
# For the Jacobian of each row of a batch, call :func:`funcdiff.batch_jacobian`, or wrap a recipe in ``vmap``. The
# function is affine, so each row has the same Jacobian. We time 16 inputs and 10240 outputs.

from funcdiff import batch_jacobian

in_dims = (None, None, 0)  # only x has a batch axis, its first
per_row = {"batch_jacobian": batch_jacobian(predict, argnums=2, in_dims=in_dims)}
for name in ("jacobian_batched_grad", "jacobian_taylor"):
    per_row[name] = vmap(recipes[name], in_dims)

weight, bias, _ = layer(16, 10240)
batch = torch.randn(4, 16, device=device)
for method in per_row.values():
    torch.testing.assert_close(method(weight, bias, batch), weight.expand(4, -1, -1))
times = compare(per_row, weight, bias, batch, rounds=9, budget=0.5)
times

# %%
# Forward mode is right for this shape, for a batch as well as for one row:

times.claim("jacobian_taylor", faster_than="jacobian_batched_grad")

# %%
# With 10240 inputs and 16 outputs, it is reverse mode:

weight, bias, _ = layer(10240, 16)
batch = torch.randn(4, 10240, device=device)
times = compare(per_row, weight, bias, batch, rounds=9, budget=0.5)
times.claim("jacobian_batched_grad", faster_than="jacobian_taylor")

# %%
# What goes wrong
# ---------------
# ``backward`` adds to ``.grad``. If you call it twice, the second result is twice the first, and torch raises no error.
# ``torch.autograd.grad`` and ``torch.func`` return their results instead.

once = leaf.grad.clone()
predict(*tall[:2], leaf).backward(gradient=torch.ones_like(y))
torch.testing.assert_close(leaf.grad, 2 * once)

# %%
# The interfaces of forward mode cannot be used inside each other: ``jvp`` fails inside the block of a dual number.

try:
    with forward_ad.dual_level():
        jvp(torch.sin, (x,), (torch.ones_like(x),))
    raise AssertionError("torch nests forward mode now: update this section")
except RuntimeError as error:
    print(error)

# %%
# Takeaway
# --------
# Call ``jacobian``. By hand, choose the mode by the shape, and batch: ``jacfwd`` or ``jacrev``. The exceptions are:
#
# * If the function has one output, you need its gradient, which is one pass: :func:`torch.func.grad`.
# * If the function is affine, there is nothing to compute: its Jacobian is the weight.
# * If all rows or columns do not fit in memory, set ``chunk_size``: see :doc:`/tutorials/batches/chunk_size`.
