r"""
Should I use forward or reverse mode for my Jacobian?
=====================================================

The Jacobian is the table of all first derivatives, :math:`J_{ij} = \partial y_i / \partial x_j`. It has one row for
each output and one column for each input. :term:`Reverse mode <reverse mode>` computes one row in each pass through the
function, and :term:`forward mode` computes one column.

So compare the number of rows with the number of columns. A layer with 32 inputs and 2048 outputs has 2048 rows and 32
columns. Forward mode computes its Jacobian in 32 passes, and reverse mode needs 2048.

**Answer:** Use the mode that needs fewer passes. :func:`funcdiff.jacobian` chooses for you: it uses forward mode if
there are many more outputs than inputs, and reverse mode otherwise.

.. code-block:: python

    from funcdiff import jacobian

    J = jacobian(func)(x)  # shape: that of the output, then that of x
"""

# %%
# Use it
# ------
# Our function is one layer, :math:`f(x) = \tanh(Wx + b)`, in three shapes. The tall Jacobian has 2048 rows and 32
# columns, the wide one 32 rows and 2048 columns, and the third is square. We differentiate with respect to ``x``, which
# is argument number 2, and print the shape of each result and the :term:`recipe` that was chosen.

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
# ``jacobian_taylor`` is forward mode, and ``jacobian_batched_grad`` is reverse mode. You can also call either one by
# its name: ``jacobian_taylor(predict, argnums=2)(weight, bias, x)``.
#
# Check it by hand
# ----------------
# The derivative of tanh is :math:`1 - \tanh^2`. So output :math:`i` changes with input :math:`j` by :math:`J_{ij} = (1
# - f_i^2)\, W_{ij}`. The automatic recipe must return the same.


def by_formula(weight, bias, x):
    return (1 - predict(weight, bias, x) ** 2)[:, None] * weight


for args in (tall, wide, square):
    torch.testing.assert_close(automatic(*args), by_formula(*args))

# %%
# Forward mode starts from a direction in the space of the inputs, a :term:`tangent` :math:`v`, and computes :math:`Jv`,
# a :term:`JVP`. If :math:`v` is a unit vector, :math:`Jv` is one column. :term:`vmap` computes the columns for all unit
# vectors in one call.

from torch.func import jvp, vjp, vmap


def columns(weight, bias, x):
    """Multiply the Jacobian by all unit tangents; a product is a column."""

    def push(tangent):
        return jvp(lambda x: predict(weight, bias, x), (x,), (tangent,))[1]

    return vmap(push, out_dims=-1)(torch.eye(len(x)))


for args in (tall, wide, square):
    torch.testing.assert_close(columns(*args), by_formula(*args))

# %%
# Reverse mode starts from a weight for each output, a :term:`cotangent` :math:`u`, and computes :math:`u^T J`, a
# :term:`VJP`. If :math:`u` is a unit vector, :math:`u^T J` is one row.


def rows(weight, bias, x):
    """Multiply all unit cotangents by the Jacobian; a product is a row."""
    y, pull_back = vjp(lambda x: predict(weight, bias, x), x)
    return vmap(pull_back)(torch.eye(len(y)))[0]


for args in (tall, wide, square):
    torch.testing.assert_close(rows(*args), by_formula(*args))

# %%
# Count
# -----
# Each column and each row costs one :term:`pass` through the layer, which is :math:`mn` multiply-adds. Forward mode
# makes :math:`n` passes, and reverse mode makes :math:`m`.

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
# This was the tall layer, with 32 inputs and 2048 outputs. Here forward mode needs fewer FLOPs (floating-point
# operations):

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
# Do the times follow the counts? We time the tall layer first. A :term:`ratio` says how many times as long as the
# fastest recipe each one takes, within the same :term:`round` of the timing.

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
# For the square layer both modes make 256 passes.

times = compare(recipes, *square)
times

# %%
# The number of passes is equal here, so the cost of one pass decides. In this run:

times.claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# The crossover
# -------------
# At which shape does the faster mode change? We keep 65536 weights and change the shape of the layer step by step: from
# 16 inputs with 4096 outputs to 4096 inputs with 16 outputs.

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
# Read the figure from left to right: with more inputs there are fewer outputs. The layer is square at 256 inputs. The
# curve of ``jacobian`` should stay with the lower of the other two. The crossover in inputs, with its interval:

crossover

# %%
# What goes wrong
# ---------------
# Forward mode needs a formula for each operation: how does the output change with the input? For some operations torch
# has no such formula, and raises an error. An example is :func:`torch.cdist`. Here it computes the distances from one
# point to four others, with 2 inputs and 4 outputs.

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
# ``jacobian`` chooses a recipe that has its own formula for distances. The gradient of a distance is the unit vector
# that points away from the other point, so we can check the result.

expected = (corner - points) / (corner - points).norm(dim=1, keepdim=True)
torch.testing.assert_close(jacobian(distances)(corner).view(4, 2), expected)
print("jacobian chose", explain(jacobian(distances), corner).recipe)

# %%
# Takeaway
# --------
# Call ``jacobian``, or choose the mode with fewer passes: forward mode makes :math:`n`, reverse mode :math:`m`. The
# exceptions are:
#
# * If the function has one output, you need its gradient, which is one reverse pass: :func:`torch.func.grad`.
# * If torch has no forward formula for an operation, ``jacobian_forward`` fails. ``jacobian`` uses another recipe.
# * If :math:`n` and :math:`m` are similar, measure both modes: the cost of a pass decides.
# * If the function is small, the number of passes matters little: see :doc:`/tutorials/jacobians/winner_map`.
