r"""
When is forward mode faster than reverse mode?
==============================================

:term:`Forward mode <forward mode>` computes a Jacobian column by column, in one pass for each input. A pass runs once
through all operations of the function. :term:`Reverse mode <reverse mode>` computes the Jacobian row by row, in one
pass for each output. So the usual rule is to compare the numbers of inputs and outputs. With 4 inputs and 1024 outputs,
forward mode makes 4 passes and reverse mode 1024.

But passes do not all take the same time, so the rule can fail:

* A function can be so small that starting its operations takes most of the time. The number of passes then hardly
  matters.
* A network can have a bottleneck, a narrow layer in the middle. From 256 inputs through 4 hidden units to 256 outputs,
  either mode makes 256 passes, but the two halves need only 4 passes each.
* One operation can be expensive in one of the two modes, such as ``torch.cumprod`` in reverse mode.

**Answer:** Forward mode is faster if it needs far fewer passes and arithmetic takes most of the time.
:func:`funcdiff.jacobian` predicts the times: as a rule, it uses forward mode if there are many more outputs than
inputs, and reverse mode otherwise. For a network with a bottleneck, multiply the Jacobians of its two halves.

.. code-block:: python

    import torch
    from funcdiff import jacobian

    J = jacobian(func)(x)  # shape: that of the output, then that of x
    J = torch.func.jacfwd(func)(x)  # forward mode in torch alone
    J = torch.func.jacrev(func)(x)  # reverse mode in torch alone
    J = jacobian(decoder)(encoder(x)) @ jacobian(encoder)(x)  # for a bottleneck
"""

# %%
# Use it
# ------
# Our function is a network with two hidden layers of 256 units, :math:`f(x) = W_3 \tanh(W_2 \tanh(W_1 x))`. It has 16
# inputs and 1024 outputs. We print the shape of the Jacobian and the method that was chosen, the :term:`recipe`.

import torch

from funcdiff import explain, jacobian

device = "cuda" if torch.cuda.is_available() else "cpu"


def network(n, m, h=256):
    """Return the function and its weights."""
    sizes = [(n, h), (h, h), (h, m)]
    weights = [torch.randn(b, a, device=device) / a**0.5 for a, b in sizes]

    def predict(x):
        return weights[2] @ torch.tanh(weights[1] @ torch.tanh(weights[0] @ x))

    return predict, weights


predict, weights = network(16, 1024)
x = torch.randn(16, device=device)
J = jacobian(predict)(x)
print(tuple(J.shape), explain(jacobian(predict), x).recipe)

# %%
# ``jacobian_taylor`` uses forward mode, with 16 passes. Reverse mode would make 1024.
#
# Check it by hand
# ----------------
# By the chain rule the Jacobian is a product of five matrices, :math:`W_3 D_2 W_2 D_1 W_1`. The diagonal matrices
# :math:`D` contain the derivatives of tanh. You can multiply in any order. Forward mode starts at the right end, and
# reverse mode at the left end. We do both, and the results are equal.


def jacobian_by_hand(weights, x, from_the_right):
    """Multiply the same five matrices in one order or the other."""
    first, second, third = weights
    y = torch.tanh(first @ x)
    d1, d2 = 1 - y**2, 1 - torch.tanh(second @ y) ** 2
    if from_the_right:
        return third @ (d2[:, None] * (second @ (d1[:, None] * first)))
    return (third * d2 @ second * d1) @ first


for from_the_right in (True, False):
    expected = jacobian_by_hand(weights, x, from_the_right)
    torch.testing.assert_close(J, expected, rtol=1e-4, atol=1e-4)

# %%
# Count
# -----
# The order changes the amount of arithmetic. Let there be :math:`n` inputs, :math:`m` outputs and :math:`h` hidden
# units in each layer. From the right, the products take :math:`n h (h + m)` multiplications, and from the left
# :math:`m h (h + n)`. The difference is :math:`h^2 (n - m)`. So for arithmetic alone, the rule is right. We count both.

from funcdiff import jacobian_forward, jacobian_reverse
from funcdiff.measure import compare, count
from funcdiff.plots import plot_winners


def modes(predict):
    """Return both modes for one function."""
    return {
        "jacobian_forward": jacobian_forward(predict),
        "jacobian_reverse": jacobian_reverse(predict),
    }


costs = count(modes(predict), x)
costs

# %%
# Forward mode needs fewer FLOPs (floating-point operations) and less memory here.

costs.claim("jacobian_forward", fewer_flops_than="jacobian_reverse", by=3)

# %%
# Time
# ----
# First we time this one shape: ``jacobian``, the two recipes that it chooses most often, and the two modes of
# ``torch.func``.

from funcdiff import jacobian_batched_grad, jacobian_taylor

automatic = {
    "jacobian": jacobian(predict),
    "jacobian_taylor": jacobian_taylor(predict),
    "jacobian_batched_grad": jacobian_batched_grad(predict),
}
compare({**automatic, **modes(predict)}, x, rounds=9)

# %%
# The column *ratio to fastest* says how many times as long a recipe takes as the first one. Now we time both modes for
# every pair of five sizes.

sizes = [4, 16, 64, 256, 1024]
grid, chosen = {}, {}
for n in sizes:
    for m in sizes:
        func, point = network(n, m)[0], torch.randn(n, device=device)
        grid[n, m] = compare(modes(func), point, rounds=15)
        chosen[n, m] = explain(jacobian(func), point).recipe

# %%
# For each pair with different :math:`n` and :math:`m`, we ask whether the rule named the faster mode. ``no difference``
# means that this run cannot tell, because the interval of the :term:`ratio` includes 1.

from collections import Counter


def verdict(n, m):
    """Compare the rule with the measurement."""
    forward, reverse = "jacobian_forward", "jacobian_reverse"
    fewer, more = (forward, reverse) if n < m else (reverse, forward)
    return grid[n, m].claim(fewer, faster_than=more).verdict


verdicts = Counter(verdict(n, m) for n, m in grid if n != m)
for word, cells in verdicts.items():
    print(f"{word}: {cells} of {verdicts.total()} pairs")

# %%
# Each cell of the map is a pair of sizes. Its colour shows the faster mode, and its number how many times as fast it
# is. "=" means that this run cannot tell. According to the rule, the colour changes at the diagonal line.

right = f"{verdicts['holds']} of {verdicts.total()}"
plot_winners(
    grid,
    "jacobian_forward",
    "jacobian_reverse",
    labels=("inputs n", "outputs m"),
    title=f"The rule names the faster mode in {right} cells off the diagonal",
)

# %%
# Look at the corners far from the line. There one mode makes 256 times as many passes as the other:

grid[4, 1024].claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
# The opposite corner, with 1024 inputs and 4 outputs:

grid[1024, 4].claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# Near the lower left corner there is little arithmetic, so the overhead of starting operations decides. Reverse mode
# has less overhead. For 4 inputs and 16 outputs the rule says forward mode, and we expect the opposite:

grid[4, 16].claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# ``jacobian`` includes the overhead in its prediction. These are the pairs for which it does not follow the rule:

forward = "jacobian_taylor", "jacobian_forward"
departures = [
    f"{n} inputs, {m} outputs: {name}"
    for (n, m), name in chosen.items()
    if n != m and (name in forward) != (n < m)
]
print("\n".join(departures) or "none")

# %%
# A bottleneck
# ------------
# Suppose a network maps 256 inputs to 4 numbers, and these to 256 outputs. The first half is :math:`e`, the second half
# :math:`d`. By the chain rule, the Jacobian is the product :math:`J_d J_e`. :math:`J_e` has only 4 rows, so it needs 4
# passes in reverse mode. :math:`J_d` has only 4 columns, so it needs 4 passes in forward mode. For the whole network,
# either mode makes 256 passes.

encoder, _ = network(256, 4)
decoder, _ = network(4, 256)


def whole(x):
    return decoder(encoder(x))


def by_halves(x):
    return jacobian(decoder)(encoder(x)) @ jacobian(encoder)(x)


x = torch.randn(256, device=device)
methods = {"by halves": by_halves, "jacobian": jacobian(whole), **modes(whole)}
torch.testing.assert_close(by_halves(x), jacobian(whole)(x), rtol=1e-4, atol=1e-4)
costs = count(methods, x)
costs

# %%
# The halves together need far fewer FLOPs than the whole in either mode:

costs.claim("by halves", fewer_flops_than="jacobian_reverse", by=20)

# %%
# The times of the same four methods:

times = compare(methods, x, rounds=9)
times

# %%
# We expect a smaller gain in time than in FLOPs, because two Jacobians also have twice the overhead:

times.claim("by halves", faster_than="jacobian_reverse")

# %%
# An operation with an expensive pass
# -----------------------------------
# For :func:`torch.cumprod` a pass costs more in reverse mode. torch's reverse formula loops over the entries, and its
# forward formula does not. We count both modes for 256 inputs and outputs.

methods = modes(lambda x: torch.cumprod(x, 0))
x = 1 + torch.rand(256, device=device) / 100
costs = count(methods, x)
costs

# %%
# Compare the numbers of operations. An :term:`operation` is one computation on whole tensors, and each one takes time
# to start.

costs.claim("jacobian_forward", fewer_operations_than="jacobian_reverse", by=10)

# %%
# The times should follow:

compare(methods, x, rounds=9).claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
# What goes wrong
# ---------------
# *You use* ``torch.no_grad`` *to keep a value constant.* Reverse mode treats the norm below as a constant. Forward mode
# ignores ``no_grad``, so it returns another Jacobian. No error is raised.


def normalised(x):
    with torch.no_grad():
        norm = x.norm()
    return x / norm


x = torch.tensor([3.0, 4.0], dtype=torch.float64)
constant = torch.eye(2, dtype=torch.float64) / 5
print("reverse:", jacobian_reverse(normalised)(x).round(decimals=3).tolist())
print("forward:", jacobian_forward(normalised)(x).round(decimals=3).tolist())
torch.testing.assert_close(jacobian_reverse(normalised)(x), constant)
assert not torch.allclose(jacobian_forward(normalised)(x), constant), (
    "forward mode respects no_grad now: update What goes wrong of winner_map"
)

# %%
# Use ``detach`` instead. Both modes respect it, and so does ``jacobian``.

detached = modes(lambda x: x / x.norm().detach())
for recipe in (*detached.values(), jacobian(lambda x: x / x.norm().detach())):
    torch.testing.assert_close(recipe(x), constant)

# %%
# Takeaway
# --------
# Compare the numbers of inputs and outputs. The mode that needs far fewer passes is faster. The exceptions are:
#
# * If the function is small, the overhead decides: use ``jacobian``, or measure.
# * If the network has a bottleneck, multiply the Jacobians of its halves.
# * If one operation is expensive in one mode, the counts of :func:`funcdiff.measure.count` show it.
