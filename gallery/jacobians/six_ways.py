r"""
Which of torch's six ways to compute a Jacobian should I use?
=============================================================

A Jacobian has a row for each output and a column for each input. All six methods return the same matrix:

* :term:`Reverse mode` computes rows. You can loop over ``torch.autograd.grad``, or compute all rows at once with
  ``vmap`` of ``vjp``, or with ``jacrev``, which does the same in one call.
* :term:`Forward mode` computes columns. You can loop over dual numbers (pairs of a number and its derivative) or over
  ``jvp``, or compute all columns at once with ``jacfwd``.

For 16 inputs and 1024 outputs, a loop in reverse mode makes 1024 calls. ``jacfwd`` makes one call for all 16 columns.

**Answer:** Call :func:`funcdiff.jacobian`. It computes all rows or all columns at once, in the faster mode: as a
rule, it uses forward mode if there are many more outputs than inputs, and reverse mode otherwise.

.. code-block:: python

    import funcdiff, torch

    A, x = torch.randn(1024, 16), torch.randn(16)
    f = lambda x: A @ x  # 16 inputs, 1024 outputs
    J = funcdiff.jacobian(f)(x)  # (1024, 16): the shape of the output, then that of x
    J = torch.func.jacfwd(f)(x)  # in torch alone, if there are fewer inputs
    J = torch.func.jacrev(f)(x)  # in torch alone, if there are fewer outputs
"""

# %%
# Use it
# ------
# Our function is :math:`f(x) = Wx + b`. We compute its Jacobian for 16 inputs and 1024 outputs, and for 1024 inputs and
# 16 outputs. We print the shape and the method that was chosen, the :term:`recipe`.

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
# The Jacobian of :math:`Wx + b` is the weight :math:`W`, so we can check every method.

for weight, bias, x in (tall, wide):
    torch.testing.assert_close(automatic(weight, bias, x), weight)

# %%
# Three interfaces in reverse mode
# --------------------------------
# We loop over ``torch.autograd.grad``, call :func:`torch.func.vjp` for all rows at once (:term:`vmap`), or ``jacrev``.

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
# A column says how the outputs change in one direction of the inputs, a :term:`tangent`. A dual number is a number
# together with this change. We loop over dual numbers and :func:`torch.func.jvp`, and call :func:`torch.func.jacfwd`.

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
# ``backward`` computes the gradient of one number. If you pass a gradient of ones, this number is the sum of all
# outputs. Its gradient is the sum of all rows of the Jacobian, so it is another check.

weight, bias, x = tall
leaf = x.clone().requires_grad_()
y = predict(weight, bias, leaf)
y.backward(gradient=torch.ones_like(y))
torch.testing.assert_close(leaf.grad, automatic(*tall).sum(0), rtol=1e-4, atol=1e-4)

# %%
# If you need only this sum, do not compute the Jacobian. We count both.

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
# A :term:`pass` computes :math:`mn` products and sums in either mode. For 16 inputs and 1024 outputs, forward mode
# makes 16 passes and reverse mode makes 1024. We count all six interfaces and ``jacobian``.

methods = {"jacobian": automatic, **interfaces}
costs = count(methods, *tall)
costs

# %%
# The mode determines the FLOPs (floating-point operations). The loops run many more operations, and each
# :term:`operation` takes time to start. Both forward loops evaluate the function again for each column.

costs.claim("jacfwd", fewer_flops_than="jacrev", by=30)

# %%
# In reverse mode, the batched interface starts far fewer operations than the loop:

costs.claim("jacrev", fewer_operations_than="grad_loop", by=100)

# %%
# Time
# ----
# We expect the mode with fewer passes to be faster, and one call to be faster than a loop. First we time 16 inputs and
# 1024 outputs. A method that takes longer than the ``budget``, in seconds, is called once.

tall_times = compare(methods, *tall, rounds=9, budget=0.1)
tall_times

# %%
# The ratio is the time divided by that of the fastest method. We expect ``jacfwd`` far ahead of ``grad_loop``:

tall_times.claim("jacfwd", faster_than="grad_loop")

# %%
# Next we time 1024 inputs and 16 outputs.

wide_times = compare(methods, *wide, rounds=9, budget=0.1)
wide_times

# %%
# Now reverse mode makes fewer passes:

wide_times.claim("jacrev", faster_than="jvp_loop")

# %%
# The figure shows the same times on a logarithmic axis.

slow = wide_times["jvp_loop"].median / wide_times["jacobian"].median
title = f"1024 inputs, 16 outputs: a loop in the wrong mode takes {slow:.0f}× as long"
plot(wide_times, title=title)

# %%
# Reverse mode should be ahead of forward mode, and in each mode one call for all rows or columns ahead of the loop.
#
# Ten times the size
# ------------------
# For 16 inputs and 10240 outputs, we time ``jacobian``, two recipes by name, and the loops in the better mode:

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
# Even a loop should win here, if its mode needs fewer passes. It makes 16 calls, and reverse mode makes 10240 passes:

times.claim("dual_loop", faster_than="jacobian_batched_grad")

# %%
# Now 10240 inputs and 16 outputs:

methods = {**recipes, "grad_loop": grad_loop}
times = compare(methods, *layer(10240, 16), rounds=9, budget=0.5)
times

# %%
# Here the loop is in reverse mode, and forward mode makes 10240 passes:

times.claim("grad_loop", faster_than="jacobian_taylor")

# %%
# A batch of 4
# ------------
# For the Jacobian at each row of a batch, call :func:`funcdiff.batch_jacobian`, or a recipe with ``vmap``. We time 4
# rows with 16 inputs and 10240 outputs. The Jacobian of :math:`Wx + b` is the same at each row.

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
# ``jacobian_taylor`` with ``vmap`` finds the same matrix for all rows and stores it once. ``batch_jacobian`` stores a
# copy for each row, so here it can take longer. Forward mode should be faster for this shape, as for one row:

times.claim("jacobian_taylor", faster_than="jacobian_batched_grad")

# %%
# With 10240 inputs and 16 outputs, reverse mode should be faster:

weight, bias, _ = layer(10240, 16)
batch = torch.randn(4, 10240, device=device)
times = compare(per_row, weight, bias, batch, rounds=9, budget=0.5)
times.claim("jacobian_batched_grad", faster_than="jacobian_taylor")

# %%
# What goes wrong
# ---------------
# *You call* ``backward`` *twice.* It adds to ``.grad``. The second result is then twice the first, and no error is
# raised. ``torch.autograd.grad`` and the functions of ``torch.func`` return their results instead.

once = leaf.grad.clone()
predict(*tall[:2], leaf).backward(gradient=torch.ones_like(y))
torch.testing.assert_close(leaf.grad, 2 * once)

# %%
# *You nest two interfaces of forward mode.* ``jvp`` raises an error inside the block of a dual number.

try:
    with forward_ad.dual_level():
        jvp(torch.sin, (x,), (torch.ones_like(x),))
    raise AssertionError("torch nests forward mode now: update this section")
except RuntimeError as error:
    print(error)

# %%
# Takeaway
# --------
# Call ``jacobian``. In torch alone, call ``jacfwd`` for fewer inputs, and ``jacrev`` for fewer outputs. The exceptions:
#
# * If the function has one output, you need its gradient, which is one pass: :func:`torch.func.grad`.
# * If the function is :math:`Wx + b`, there is nothing to compute: its Jacobian is the weight.
# * If all rows or columns do not fit in memory, set ``chunk_size``: see :doc:`/tutorials/batches/chunk_size`.
