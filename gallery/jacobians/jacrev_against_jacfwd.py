r"""
Reverse or forward mode for my Jacobian?
========================================

A Jacobian of :math:`m` outputs and :math:`n` inputs has :math:`m` rows and :math:`n` columns. Reverse mode computes
rows, forward mode columns; the wrong choice costs up to their ratio in arithmetic, and less in time.

**Answer:** more outputs than inputs: :func:`funcdiff.jacobian_forward`. More inputs than outputs:
:func:`funcdiff.jacobian_reverse`. Near the square, measure: the two modes do not cost the same per pass.
"""

# %%
# The function
# ------------
# :math:`f(x) = \tanh(Wx + b)`, with :math:`W` of shape (outputs, inputs).

import torch
from torch.func import jvp, vjp, vmap
from torch.nn.functional import linear


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


def layer(inputs, outputs):
    return torch.randn(outputs, inputs), torch.randn(outputs), torch.randn(inputs)


def by_formula(weight, bias, x):
    return (1 - predict(weight, bias, x) ** 2)[:, None] * weight


# %%
# By hand
# -------
# Forward mode pushes unit tangents through the function and gets columns; reverse mode pulls unit cotangents back
# and gets rows. Each is one ``vmap``.


def columns(weight, bias, x):
    """Push each unit tangent forward; the columns come out along the last axis."""

    def push(tangent):
        return jvp(lambda x: predict(weight, bias, x), (x,), (tangent,))[1]

    return vmap(push, out_dims=-1)(torch.eye(len(x)))


def rows(weight, bias, x):
    """Pull each unit cotangent back."""
    y, pull_back = vjp(lambda x: predict(weight, bias, x), x)
    return vmap(pull_back)(torch.eye(len(y)))[0]


tall, wide, square = layer(32, 2048), layer(2048, 32), layer(256, 256)
for args in (tall, wide, square):
    torch.testing.assert_close(columns(*args), by_formula(*args))
    torch.testing.assert_close(rows(*args), by_formula(*args))

# %%
# The recipes
# -----------
# The same with options and checks. They are equal to the formula, whatever the shape.

from funcdiff import jacobian_forward, jacobian_reverse

recipes = {
    "jacobian_forward": jacobian_forward(predict, argnums=2),
    "jacobian_reverse": jacobian_reverse(predict, argnums=2),
}
for args in (tall, wide, square):
    for recipe in recipes.values():
        torch.testing.assert_close(recipe(*args), by_formula(*args))

# %%
# Prediction
# ----------
# One pass through the layer takes :math:`mn` multiply-adds. Forward mode makes :math:`n` passes, reverse mode
# :math:`m`. For the tall layer, 32 inputs and 2048 outputs, counted exactly:

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

count(recipes, *tall)

# %%
# and for the wide one, 2048 inputs and 32 outputs:

count(recipes, *wide)

# %%
# Measurement
# -----------
# Tall, more outputs than inputs:

tall_times = compare(recipes, *tall)
tall_times

# %%
tall_times.claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
# Wide, more inputs than outputs:

wide_times = compare(recipes, *wide)
wide_times

# %%
wide_times.claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# Square:

square_times = compare(recipes, *square)
square_times

# %%
square_times.claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# Where the crossover lies
# ------------------------
# We keep the size of the weight and change its shape: :math:`n` inputs and :math:`65536 / n` outputs.


def reshaped(n):
    return recipes, layer(n, 65536 // n)


study = sweep(reshaped, [16, 64, 128, 256, 512, 1024, 4096], label="inputs n, with 65536 / n outputs", rounds=9)
plot(study, title="Forward mode wins on the left, reverse mode on the right")

# %%
# The two curves cross at

study.crossover("jacobian_forward", "jacobian_reverse")

# %%
# inputs; equal numbers of inputs and outputs would be 256.
#
# What breaks
# -----------
# Forward mode needs a forward formula for each operation, and not all have one. Here shape says forward mode, and the
# operation refuses:

points = torch.randn(4, 2)
try:
    jacobian_forward(lambda x: torch.cdist(x, points))(torch.randn(1, 2))
except (RuntimeError, NotImplementedError) as error:
    print(type(error).__name__, "--", error)

# %%
# Takeaway
# --------
# Count inputs and outputs, and take the mode with fewer passes. The exceptions: an operation without a forward
# formula leaves only reverse mode; a Jacobian near the square is decided by the cost of a pass, so measure it; and a
# gradient, one output, is always one reverse pass and no Jacobian at all.
