r"""
Which of torch's six interfaces should take my Jacobian?
========================================================

torch offers the same matrix through ``autograd``, ``forward_ad`` and ``torch.func``, in reverse and in forward mode,
in a loop and batched. The wrong mode costs up to the ratio of inputs to outputs, a loop a call for each row or column.

**Answer:** the mode with fewer passes, batched: :func:`funcdiff.jacobian_forward` or
:func:`funcdiff.jacobian_reverse`. The mode sets the number of passes; the interface, what it composes with.
"""

# %%
# The function
# ------------
# An affine map, :math:`f(x) = Wx + b`. Its Jacobian *is* the weight, so each way can be checked exactly.

import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import jacfwd, jacrev, jvp, vjp, vmap
from torch.nn.functional import linear

device = "cuda" if torch.cuda.is_available() else "cpu"


def predict(weight, bias, x):
    return linear(x, weight, bias)


def layer(inputs, outputs):
    return tuple(torch.randn(shape, device=device) for shape in [(outputs, inputs), (outputs,), (inputs,)])


# %%
# By hand
# -------
# Reverse mode pulls each unit cotangent back and gets a row: by plain autograd in a loop, in one ``vmap`` over the
# vector-Jacobian product, or by :func:`torch.func.jacrev`, which does the same.


def grad_loop(weight, bias, x):
    x = x.detach().requires_grad_()
    y = predict(weight, bias, x)
    units = torch.eye(len(y), device=x.device)
    return torch.stack([torch.autograd.grad(y, x, unit, retain_graph=True)[0] for unit in units])


def vmap_over_vjp(weight, bias, x):
    y, pull_back = vjp(lambda x: predict(weight, bias, x), x)
    return vmap(pull_back)(torch.eye(len(y), device=x.device))[0]


reverse = {"grad_loop": grad_loop, "vmap_over_vjp": vmap_over_vjp, "jacrev": jacrev(predict, argnums=2)}

# %%
# Forward mode pushes each unit tangent through the function and gets a column: with dual numbers, which carry their
# tangent along, with :func:`torch.func.jvp` in a loop, or by :func:`torch.func.jacfwd`.


def dual_loop(weight, bias, x):
    columns = []
    for unit in torch.eye(len(x), device=x.device):
        with forward_ad.dual_level():
            y = predict(weight, bias, forward_ad.make_dual(x, unit))
            columns.append(forward_ad.unpack_dual(y).tangent)
    return torch.stack(columns, dim=1)


def jvp_loop(weight, bias, x):
    units = torch.eye(len(x), device=x.device)
    return torch.stack([jvp(lambda x: predict(weight, bias, x), (x,), (unit,))[1] for unit in units], dim=1)


forward = {"dual_loop": dual_loop, "jvp_loop": jvp_loop, "jacfwd": jacfwd(predict, argnums=2)}

# %%
# The recipes
# -----------
# ``funcdiff`` has a recipe a mode, with the calling convention of the last of each three. All are equal to the weight.

from funcdiff import jacobian_forward, jacobian_reverse

recipes = {
    "jacobian_reverse": jacobian_reverse(predict, argnums=2),
    "jacobian_forward": jacobian_forward(predict, argnums=2),
}
tall, wide = layer(16, 1024), layer(1024, 16)
for args in (tall, wide):
    for way in {**reverse, **forward, **recipes}.values():
        torch.testing.assert_close(way(*args), args[0])

# %%
# The sum of the rows
# -------------------
# ``backward`` with a gradient of ones pulls the sum of all unit cotangents back: one pass, and the sum of the rows. It
# checks a Jacobian, and it is a warning: who wants the gradient of a sum, or of any scalar, needs no Jacobian.

weight, bias, x = tall
leaf = x.clone().requires_grad_()
y = predict(weight, bias, leaf)
y.backward(gradient=torch.ones_like(y))
torch.testing.assert_close(leaf.grad, jacrev(predict, argnums=2)(*tall).sum(0), rtol=1e-4, atol=1e-4)

# %%
from funcdiff.measure import compare, count
from funcdiff.plots import plot

gradients = {
    "gradient of the sum": torch.func.grad(lambda *args: predict(*args).sum(), argnums=2),
    "sum of the rows": lambda *args: recipes["jacobian_reverse"](*args).sum(0),
}
count(gradients, *tall).claim("gradient of the sum", fewer_flops_than="sum of the rows", by=100)

# %%
# Prediction
# ----------
# A pass takes :math:`mn` multiply-adds in either mode. For 16 inputs and 1024 outputs forward mode makes 16 passes,
# reverse mode 1024. The loops start operations anew for each, and repeat what the batched ways do once: the forward
# pass itself, and for dual numbers the products with the zero tangents of the weight.

costs = count({**reverse, **forward}, *tall)
costs

# %%
costs.claim("jacfwd", fewer_flops_than="jacrev", by=30)

# %%
costs.claim("jacrev", fewer_operations_than="grad_loop", by=100)

# %%
# Measurement
# -----------
# Tall, 16 inputs and 1024 outputs. A way whose call exceeds a budget of a tenth of a second is called once and marked.

tall_times = compare({**reverse, **forward}, *tall, rounds=9, budget=0.1)
tall_times

# %%
tall_times.claim("jacfwd", faster_than="grad_loop")

# %%
# Wide, 1024 inputs and 16 outputs:

wide_times = compare({**reverse, **forward}, *wide, rounds=9, budget=0.1)
wide_times

# %%
wide_times.claim("jacrev", faster_than="jvp_loop")

# %%
plot(wide_times, title="1024 inputs, 16 outputs: the wrong mode costs, and in a loop it costs far more")

# %%
# Ten times the size
# ------------------
# With 10240 in place of 1024 the loops of the wrong mode would make as many calls, and we leave them out. The batched
# recipes, and the loops of the right mode, take part.

right_loops = {"dual_loop": dual_loop, "jvp_loop": jvp_loop}
compare({**recipes, **right_loops}, *layer(16, 10240), rounds=9, budget=0.5)

# %%
compare({**recipes, "grad_loop": grad_loop}, *layer(10240, 16), rounds=9, budget=0.5)

# %%
# A batch of 4
# ------------
# Each row has its own Jacobian: the batched ways go under one more ``vmap``, and every block is the weight again. The
# pull-back and push-forward are batched over units and rows at once.

weight, bias, _ = layer(16, 10240)
rows = torch.randn(4, 16, device=device)
per_row = {name: vmap(recipe, in_dims=(None, None, 0)) for name, recipe in recipes.items()}
for way in per_row.values():
    torch.testing.assert_close(way(weight, bias, rows), weight.expand(4, -1, -1))

batch_times = compare(per_row, weight, bias, rows, rounds=9, budget=0.5)
batch_times.claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
weight, bias, _ = layer(10240, 16)
batch_times = compare(per_row, weight, bias, torch.randn(4, 10240, device=device), rounds=9, budget=0.5)
batch_times.claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# What breaks
# -----------
# The check above, run twice. ``backward`` adds to what ``.grad`` holds, and nothing is said;
# :func:`torch.autograd.grad` and ``torch.func`` return what they computed.

once = leaf.grad.clone()
predict(*tall[:2], leaf).backward(gradient=torch.ones_like(y))
torch.testing.assert_close(leaf.grad, 2 * once)

# %%
# And the interfaces do not nest in each other: dual numbers and ``torch.func`` each want to own forward mode.

try:
    with forward_ad.dual_level():
        jvp(torch.sin, (x,), (torch.ones_like(x),))
    raise AssertionError("torch has come to nest forward mode: update the section What breaks of six_ways")
except RuntimeError as error:
    print(error)

# %%
# Takeaway
# --------
# Choose the mode by the shape, batch the passes, and let the interface follow from what it must compose with: that
# speaks for ``torch.func``. The exception is a gradient, which needs one pass and no Jacobian at all; and for an affine
# map there is nothing to differentiate, since the Jacobian is the weight.
