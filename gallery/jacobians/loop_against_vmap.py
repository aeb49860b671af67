r"""
Should I loop over the rows of a Jacobian?
==========================================

Reverse mode gives one row of a Jacobian a call. With :math:`m` outputs, a Python loop makes :math:`m` calls of
autograd, and for a small function it is the calls that take the time, not the arithmetic.

**Answer:** no. Let one call do all rows: :func:`funcdiff.jacobian_batched_grad` where plain autograd will do,
:func:`funcdiff.jacobian_reverse` where the result must compose with other transforms.
"""

# %%
# The function
# ------------
# One layer, :math:`f(x) = \tanh(Wx + b)`, with as many outputs as inputs.

import torch
from torch.func import vjp, vmap
from torch.nn.functional import linear


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


D = 16
weight, bias, x = torch.randn(D, D), torch.randn(D), torch.randn(D)

# %%
# By hand
# -------
# The derivative of tanh is :math:`1 - \tanh^2`, so row :math:`i` of the Jacobian is row :math:`i` of the weight,
# scaled: :math:`J_{ij} = (1 - f_i^2)\, W_{ij}`. Every other way must agree with it.

expected = (1 - predict(weight, bias, x) ** 2)[:, None] * weight


def row_loop(weight, bias, x):
    """Pull one unit vector a call back through one graph."""
    x = x.detach().requires_grad_()
    y = predict(weight, bias, x)
    rows = [torch.autograd.grad(y, x, unit, retain_graph=True)[0] for unit in torch.eye(len(y))]
    return torch.stack(rows)


def vmap_over_vjp(weight, bias, x):
    """Pull all unit vectors back in one batched call."""
    y, pull_back = vjp(lambda x: predict(weight, bias, x), x)
    (jacobian,) = vmap(pull_back)(torch.eye(len(y)))
    return jacobian


torch.testing.assert_close(row_loop(weight, bias, x), expected)
torch.testing.assert_close(vmap_over_vjp(weight, bias, x), expected)

# %%
# The recipes
# -----------
# ``funcdiff`` has both, checked and with options, and a third: ``is_grads_batched=True`` batches the rows within one
# call of ``torch.autograd.grad``. All take ``argnums`` as :func:`torch.func.jacrev` does.

from funcdiff import jacobian_batched_grad, jacobian_loop, jacobian_reverse

recipes = {
    "jacobian_loop": jacobian_loop(predict, argnums=2),
    "jacobian_batched_grad": jacobian_batched_grad(predict, argnums=2),
    "jacobian_reverse": jacobian_reverse(predict, argnums=2),
    "torch.func.jacrev": torch.func.jacrev(predict, argnums=2),
}
for recipe in recipes.values():
    torch.testing.assert_close(recipe(weight, bias, x), expected)

# %%
# Prediction
# ----------
# The arithmetic is the same for all: one forward pass and :math:`m` backward passes. What differs is the number of
# operations that torch is asked to start. Both are counted exactly, without a clock.

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

costs = count(recipes, weight, bias, x)
costs

# %%
# If starting an operation is what takes the time, the loop must lose.

costs.claim("jacobian_reverse", fewer_operations_than="jacobian_loop")

# %%
# Measurement
# -----------
# The candidates take turns in random order, so that a slow moment of the machine hits all alike, and each ratio is
# taken within a round.

comparison = compare(recipes, weight, bias, x)
comparison

# %%
comparison.claim("jacobian_batched_grad", faster_than="jacobian_loop")

# %%
comparison.claim("jacobian_reverse", faster_than="jacobian_loop")

# %%
# How the gap grows
# -----------------
# The loop pays per output; the batched ways pay once, until the arithmetic itself takes over.


def with_outputs(m):
    """The first three recipes on a layer with D inputs and m outputs."""
    args = torch.randn(m, D), torch.randn(m), torch.randn(D)
    return {name: recipes[name] for name in list(recipes)[:3]}, args


study = sweep(with_outputs, [1, 4, 16, 64, 256, 1024], label="outputs m", rounds=9)
plot(study, title="The loop pays for each output, a batched call pays once")

# %%
# With a single output there is nothing to batch, and the machinery of the transform is all that is left to see:

study[1].claim("jacobian_reverse", faster_than="jacobian_loop")

# %%
# What breaks
# -----------
# Batching the rows relies on each operation's derivative being written for a batch of cotangents. For
# :func:`torch.cdist` it is not: nothing is raised, the first row is right, the others are wrong.

a, b = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)


def distances(a):
    return torch.cdist(a, b).flatten()


by_rows = jacobian_loop(distances)(a)
batched = torch.func.jacrev(distances)(a)
torch.testing.assert_close(batched[0], by_rows[0])
print("error of each row:", (batched - by_rows).abs().amax(dim=(1, 2)))
assert not torch.allclose(batched, by_rows), "torch has mended cdist: update this section"

# %%
# The distance written out has derivatives that batch, and agrees with the loop:


def distances_by_hand(a):
    return (a[:, None] - b).square().sum(-1).sqrt().flatten()


torch.testing.assert_close(jacobian_reverse(distances_by_hand)(a), by_rows)

# %%
# Takeaway
# --------
# Batch the rows. Keep the loop for two cases: as the reference that checks a batched result on a new operation, and
# where the memory for all rows at once is not there (though ``chunk_size`` is the better remedy for that).
