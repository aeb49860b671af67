r"""
Should I use forward or reverse mode for my Jacobian?
=====================================================

The Jacobian is the table of all first derivatives. It has one row for each output and one column for each input.
:term:`Reverse mode <reverse mode>` (``jacrev``) computes one row in each pass through the function.
:term:`Forward mode <forward mode>` (``jacfwd``) computes one column in each pass.

So compare the number of rows with the number of columns. A layer with 32 inputs and 2048 outputs has 2048 rows and 32
columns. Forward mode computes its Jacobian in 32 passes, and reverse mode needs 2048.

**Answer:** In a large function, use the mode that needs fewer passes. :func:`funcdiff.jacobian` predicts the
times: as a rule, it uses forward mode if there are many more outputs than inputs, and reverse mode otherwise.

.. code-block:: python

    import torch
    from funcdiff import jacobian

    A, x = torch.randn(2048, 32), torch.randn(32)
    f = lambda x: A @ x  # 32 inputs, 2048 outputs
    J = jacobian(f)(x)  # (2048, 32): the shape of the output, then that of x
    J = torch.func.jacfwd(f)(x)  # forward mode in torch alone; jacrev is reverse mode
"""

# %%
# Use it
# ------
# Our function is one layer, :math:`f(x) = \tanh(Wx + b)`, in three shapes. The tall Jacobian has 2048 rows and 32
# columns. The wide one has 32 rows and 2048 columns. The third is square. With ``argnums=2`` we differentiate with
# respect to ``x``. We print the shape of each result and the :term:`recipe` (the method) that was chosen.

import torch
from torch.nn.functional import linear

from funcdiff import explain, jacobian


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


def layer(inputs, outputs):
    return torch.randn(outputs, inputs), torch.randn(outputs), torch.randn(inputs)


tall, wide, square = layer(32, 2048), layer(2048, 32), layer(256, 256)
automatic = jacobian(predict, argnums=2)

for args in (tall, wide, square):
    print(tuple(automatic(*args).shape), explain(automatic, *args).recipe)

# %%
# ``jacobian_taylor`` uses forward mode, and ``jacobian_batched_grad`` uses reverse mode. You can also call either one
# by its name: ``jacobian_taylor(predict, argnums=2)(weight, bias, x)``.
#
# Check it by hand
# ----------------
# The derivative of tanh is :math:`1 - \tanh^2`. So output :math:`y_i` changes with input :math:`x_j` by
# :math:`J_{ij} = (1 - y_i^2)\, W_{ij}`. All three results agree with this formula.


def by_formula(weight, bias, x):
    return (1 - predict(weight, bias, x) ** 2)[:, None] * weight


for args in (tall, wide, square):
    torch.testing.assert_close(automatic(*args), by_formula(*args))

# %%
# How does forward mode compute a column? It asks how all outputs change if the input moves in a direction :math:`v`, a
# :term:`tangent`. The answer is the product :math:`Jv`, a :term:`JVP`. If :math:`v = (1, 0, 0, \ldots)`, only the first
# input moves, and :math:`Jv` is the first column. :term:`vmap` computes the columns for all unit vectors in one call.

from torch.func import jvp, vjp, vmap


def columns(weight, bias, x):
    """Multiply the Jacobian by all unit tangents. Each product is a column."""

    def push(tangent):
        return jvp(lambda x: predict(weight, bias, x), (x,), (tangent,))[1]

    return vmap(push, out_dims=-1)(torch.eye(len(x)))


for args in (tall, wide, square):
    torch.testing.assert_close(columns(*args), by_formula(*args))

# %%
# How does reverse mode compute a row? You give each output a weight. The vector of these weights is a :term:`cotangent`
# :math:`u`. Reverse mode returns the derivatives of the weighted sum of the outputs, :math:`u^T J`, a :term:`VJP`. If
# only the first weight is 1 and all others are 0, this is the first row.


def rows(weight, bias, x):
    """Multiply all unit cotangents by the Jacobian. Each product is a row."""
    y, pull_back = vjp(lambda x: predict(weight, bias, x), x)
    return vmap(pull_back)(torch.eye(len(y)))[0]


for args in (tall, wide, square):
    torch.testing.assert_close(rows(*args), by_formula(*args))

# %%
# Count
# -----
# Each column and each row costs one :term:`pass` through the layer. With :math:`n` inputs and :math:`m` outputs, a pass
# computes :math:`mn` products and sums. Forward mode makes :math:`n` passes, and reverse mode makes :math:`m`. We count
# both modes, each in two versions.

from funcdiff import (
    jacobian_batched_grad,
    jacobian_forward,
    jacobian_reverse,
    jacobian_taylor,
)
from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

recipes = {
    "jacobian": automatic,
    "jacobian_taylor": jacobian_taylor(predict, argnums=2),
    "jacobian_forward": jacobian_forward(predict, argnums=2),
    "jacobian_batched_grad": jacobian_batched_grad(predict, argnums=2),
    "jacobian_reverse": jacobian_reverse(predict, argnums=2),
}
costs = count(recipes, *tall)
costs

# %%
# This was the tall layer, with 32 inputs and 2048 outputs. Forward mode needs fewer FLOPs (floating-point operations):

costs.claim("jacobian_forward", fewer_flops_than="jacobian_reverse")

# %%
# We count the wide layer, with 2048 inputs and 32 outputs, in the same way.

costs = count(recipes, *wide)
costs

# %%
# Now reverse mode needs fewer:

costs.claim("jacobian_reverse", fewer_flops_than="jacobian_forward")

# %%
# Time
# ----
# Do the times follow the counts? We time the tall layer first. The :term:`ratio` compares each recipe with the fastest
# one, within the same :term:`round` of the timing.

tall_times = compare(recipes, *tall)
tall_times

# %%
# The recipes of forward mode should stand at the top of this table, with ``jacobian`` among them.

tall_times.claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
# Next is the wide layer.

wide_times = compare(recipes, *wide)
wide_times

# %%
# Here the recipes of reverse mode should be at the top.

wide_times.claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# For the square layer, both modes make 256 passes.

times = compare(recipes, *square)
times

# %%
# So the cost of a single pass decides. In this run:

times.claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# The crossover
# -------------
# At which shape does reverse mode become faster? We keep 65536 weights and change the shape of the layer step by step.
# The first layer has 16 inputs and 4096 outputs, the last one 4096 inputs and 16 outputs.

raced = {
    name: recipes[name] for name in ("jacobian", "jacobian_forward", "jacobian_reverse")
}


def reshaped(n):
    return raced, layer(n, 65536 // n)


sizes = [16, 64, 128, 256, 512, 1024, 4096]
study = sweep(reshaped, sizes, label="inputs n, with 65536 / n outputs", rounds=9)
crossover = study.crossover("jacobian_forward", "jacobian_reverse")
plot(study, title=str(crossover))

# %%
# From left to right, the number of inputs grows and the number of outputs shrinks. The layer is square at 256 inputs.
# The curve of ``jacobian`` should be at or below the lower of the other two: it uses faster recipes of the same modes.
# This is the number of inputs at which the two modes take equally long, with its interval:

crossover

# %%
# What goes wrong
# ---------------
# Forward mode needs a formula for each operation, which says how the output changes with the input. For some operations
# torch has no such formula and raises an error. An example is :func:`torch.cdist`. Here it computes the distances from
# one point to four others, with 2 inputs and 4 outputs.

from textwrap import fill

points = torch.randn(4, 2)
corner = torch.zeros(1, 2)


def distances(x):
    return torch.cdist(x, points)


try:
    jacobian_forward(distances)(corner)
except (RuntimeError, NotImplementedError) as error:
    print(fill(str(error).split(". torch said")[0], 84))
else:
    raise AssertionError("torch has a forward formula for cdist: update this section")

# %%
# ``jacobian`` chooses ``jacobian_taylor``. This is forward mode too, with the formula that torch lacks. The gradient of
# a distance is the unit vector that points away from the other point. The result agrees with it.

expected = (corner - points) / (corner - points).norm(dim=1, keepdim=True)
torch.testing.assert_close(jacobian(distances)(corner).view(4, 2), expected)
print("jacobian chose", explain(jacobian(distances), corner).recipe)

# %%
# Takeaway
# --------
# Call ``jacobian``, or choose the mode with fewer passes: forward mode makes one for each input, reverse mode one for
# each output. The exceptions are:
#
# * If the function has one output, you need its gradient, which is one reverse pass: :func:`torch.func.grad`.
# * If torch has no forward formula for an operation, ``jacobian_forward`` fails. ``jacobian`` uses another recipe.
# * If there are about as many inputs as outputs, measure both modes: the cost of a pass decides.
# * If the function is small, the number of passes matters little: see :doc:`/tutorials/jacobians/winner_map`.
