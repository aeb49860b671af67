r"""
When is forward mode faster than reverse mode?
==============================================

:term:`Forward mode <forward mode>` computes the columns of a Jacobian, one pass for each of the :math:`n` inputs.
:term:`Reverse mode <reverse mode>` computes its rows, one pass for each of the :math:`m` outputs. The usual rule
therefore compares :math:`n` with :math:`m`. With 4 inputs and 1024 outputs, forward mode makes 4 passes and reverse
mode 1024.

The rule counts passes, but passes do not all take the same time. It fails in three cases: if the function is small, so
that starting its operations takes most of the time; if the network has a bottleneck; and if one operation is expensive
in one mode only.

**Answer:** Forward mode is faster if it needs far fewer passes and arithmetic takes most of the time.
:func:`funcdiff.jacobian` predicts the times: it uses forward mode if there are many more outputs than inputs, and
reverse mode otherwise. For a network with a bottleneck, multiply the Jacobians of its two halves.

.. code-block:: python

    from funcdiff import jacobian

    J = jacobian(func)(x)  # shape: that of the output, then that of x
    J = jacobian(decoder)(encoder(x)) @ jacobian(encoder)(x)  # for a bottleneck
"""

# %%
# Use it
# ------
# Our function is a network with two hidden layers of 256 units, :math:`f(x) = W_3 \tanh(W_2 \tanh(W_1 x))`. We compute
# the Jacobian for 16 inputs and 1024 outputs, and print its shape and the chosen :term:`recipe`.

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
# ``jacobian_taylor`` is forward mode, which needs 16 passes here. Reverse mode would need 1024.
#
# Check it by hand
# ----------------
# By the chain rule the Jacobian is a product of five matrices, :math:`W_3 D_2 W_2 D_1 W_1`. Each diagonal matrix
# :math:`D` contains the derivatives of tanh. The result does not depend on where we start to multiply. Forward mode
# starts from the right, and reverse mode from the left. We do both.


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
# Let each hidden layer have :math:`h` units. From the right, the products take :math:`n h (h + m)` multiply-adds; from
# the left, :math:`m h (h + n)`. The difference is :math:`h^2 (n - m)`. So in arithmetic the rule is exact. We count
# both modes for 16 inputs and 1024 outputs.

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
# The columns of FLOPs (floating-point operations) and of memory both favour forward mode here.

costs.claim("jacobian_forward", fewer_flops_than="jacobian_reverse", by=3)

# %%
# Time
# ----
# First we time this one shape: ``jacobian``, the two recipes that it chooses between, and the two modes of
# ``torch.func``.

from funcdiff import jacobian_batched_grad, jacobian_taylor

automatic = {
    "jacobian": jacobian(predict),
    "jacobian_taylor": jacobian_taylor(predict),
    "jacobian_batched_grad": jacobian_batched_grad(predict),
}
compare({**automatic, **modes(predict)}, x, rounds=9)

# %%
# The ratio says how many times as long as the fastest recipe each one takes. Now we time both modes for every pair of
# five sizes.

sizes = [4, 16, 64, 256, 1024]
grid, chosen = {}, {}
for n in sizes:
    for m in sizes:
        func, point = network(n, m)[0], torch.randn(n, device=device)
        grid[n, m] = compare(modes(func), point, rounds=15)
        chosen[n, m] = explain(jacobian(func), point).recipe

# %%
# For each pair with :math:`n \neq m` we ask whether the rule named the faster mode. ``no difference`` means that the
# interval of the :term:`ratio` includes 1, so this run cannot tell.

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
# The map shows where the rule held. The colour of a cell is that of the faster mode (see the bar), and its number says
# how many times faster. "=" means that this run cannot tell. According to the rule, the colour changes at the diagonal
# line.

right = f"{verdicts['holds']} of {verdicts.total()}"
plot_winners(
    grid,
    "jacobian_forward",
    "jacobian_reverse",
    labels=("inputs n", "outputs m"),
    title=f"The rule names the faster mode in {right} cells off the diagonal",
)

# %%
# Look at the corners far from the line: there one mode makes 256 times as many passes as the other.

grid[4, 1024].claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
# The opposite corner, with 1024 inputs and 4 outputs:

grid[1024, 4].claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# Near the lower left corner there is little arithmetic to save, so the time of the calls decides. A pass of reverse
# mode needs fewer calls. For 4 inputs and 16 outputs the rule says forward mode, and we expect the opposite:

grid[4, 16].claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# ``jacobian`` includes the calls in its prediction. We print the pairs for which it departs from the rule.

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
# A network is a chain of two functions, :math:`f(x) = d(e(x))`. By the chain rule its Jacobian is the product of
# theirs, :math:`J_d J_e`. If :math:`e` has few outputs, each half is cheap in one mode. With 4 units between 256 inputs
# and 256 outputs, :math:`J_e` needs 4 reverse passes, and :math:`J_d` 4 forward passes.

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
# We expect a smaller gain in time than in FLOPs, because two Jacobians also mean twice as many calls:

times.claim("by halves", faster_than="jacobian_reverse")

# %%
# An operation with an expensive pass
# -----------------------------------
# The rule assumes that a pass costs the same in both modes. For :func:`torch.cumprod` it does not: its reverse formula
# loops over the entries, and its forward formula does not. We count both for 256 inputs and outputs.

methods = modes(lambda x: torch.cumprod(x, 0))
x = 1 + torch.rand(256, device=device) / 100
costs = count(methods, x)
costs

# %%
# Compare the numbers of operations. An :term:`operation` is one call into torch's library.

costs.claim("jacobian_forward", fewer_operations_than="jacobian_reverse", by=10)

# %%
# The times should follow:

compare(methods, x, rounds=9).claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
# What goes wrong
# ---------------
# Both modes should return the same result. They do not if the function uses ``torch.no_grad`` to keep a value constant.
# Reverse mode treats the norm below as a constant; forward mode ignores ``no_grad``. torch raises no error.


def normalised(x):
    with torch.no_grad():
        norm = x.norm()
    return x / norm


x = torch.tensor([3.0, 4.0], dtype=torch.float64)
constant = torch.eye(2, dtype=torch.float64) / 5
print("reverse:", jacobian_reverse(normalised)(x).tolist())
print("forward:", jacobian_forward(normalised)(x).tolist())
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
# The mode that needs far fewer passes is faster: forward mode for :math:`n < m`, reverse mode for
# :math:`n > m`. The exceptions are:
#
# * If the function is small, the time of the calls decides: use ``jacobian``, or measure.
# * If the network has a bottleneck, multiply the Jacobians of its halves.
# * If an operation has formulas of different cost, the counts of :func:`funcdiff.measure.count` show it.
