r"""
Where does forward mode win, and where reverse?
===============================================

Every textbook has the rule: forward mode for :math:`n < m`, reverse mode for :math:`n > m`. It counts passes, and
time is more than passes: who trusts it blindly pays in small functions, at bottlenecks and for some operations.

**Answer:** the rule holds wherever one mode has several times fewer passes and the arithmetic outweighs the calls.
Elsewhere consult the map below, and count your own function with :func:`funcdiff.measure.count`.
"""

# %%
# The function
# ------------
# A network with two hidden layers, :math:`f(x) = W_3 \tanh(W_2 \tanh(W_1 x))`, with :math:`n` inputs, :math:`m`
# outputs and :math:`h = 256` units in each hidden layer.

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"


def network(n, m, h=256):
    """The function, and its weights."""
    weights = [torch.randn(b, a, device=device) / a**0.5 for a, b in [(n, h), (h, h), (h, m)]]

    def predict(x):
        return weights[2] @ torch.tanh(weights[1] @ torch.tanh(weights[0] @ x))

    return predict, weights


# %%
# By hand
# -------
# The Jacobian is a product, :math:`W_3 D_2 W_2 D_1 W_1`, where :math:`D` holds the slopes of tanh. Multiplied from
# the right, it is what forward mode does; from the left, what reverse mode does.


def jacobian_by_hand(weights, x, from_the_right):
    """Both orders give one matrix."""
    first, second, third = weights
    y = torch.tanh(first @ x)
    d1, d2 = 1 - y**2, 1 - torch.tanh(second @ y) ** 2
    if from_the_right:
        return third @ (d2[:, None] * (second @ (d1[:, None] * first)))
    return (third * d2 @ second * d1) @ first


predict, weights = network(16, 1024)
x = torch.randn(16, device=device)
expected = jacobian_by_hand(weights, x, from_the_right=True)
torch.testing.assert_close(jacobian_by_hand(weights, x, from_the_right=False), expected, rtol=1e-4, atol=1e-4)

# %%
# The recipes
# -----------

from funcdiff import jacobian_forward, jacobian_reverse


def recipes(predict):
    """The two modes of one function."""
    return {"jacobian_forward": jacobian_forward(predict), "jacobian_reverse": jacobian_reverse(predict)}


for recipe in recipes(predict).values():
    torch.testing.assert_close(recipe(x), expected, rtol=1e-4, atol=1e-4)

# %%
# Prediction
# ----------
# From the right the product takes :math:`n h (h + m)` multiply-adds, from the left :math:`m h (h + n)`. Their
# difference is :math:`h^2 (n - m)`: in arithmetic the rule is exact, and the width has no say in it.

from funcdiff.measure import compare, count

costs = count(recipes(predict), x)
costs

# %%
costs.claim("jacobian_forward", fewer_flops_than="jacobian_reverse", by=3)

# %%
# Measurement
# -----------
# Time also holds what each call costs, whatever its size. We measure every pair of sizes.

sizes = [4, 16, 64, 256, 1024]
grid = {
    (n, m): compare(recipes(network(n, m)[0]), torch.randn(n, device=device), rounds=15) for n in sizes for m in sizes
}

# %%
# In how many cells off the line :math:`n = m` does this run bear the rule out?

from collections import Counter


def verdict(n, m):
    """What this run says to the rule."""
    forward, reverse = "jacobian_forward", "jacobian_reverse"
    fewer, more = (forward, reverse) if n < m else (reverse, forward)
    return grid[n, m].claim(fewer, faster_than=more).verdict


verdicts = Counter(verdict(n, m) for n, m in grid if n != m)
verdicts

# %%
# Where are they? A cell has the colour of the faster mode and says how many times faster it is; "=" where the run
# cannot tell. The rule changes sides at the line.

from funcdiff.plots import plot_winners

plot_winners(
    grid,
    "jacobian_forward",
    "jacobian_reverse",
    labels=("inputs n", "outputs m"),
    title=f"The rule names the faster mode in {verdicts['holds']} of {verdicts.total()} cells off the line",
)

# %%
# In the far corners it should win clearly,

grid[4, 1024].claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
grid[1024, 4].claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# and among the smallest there is little arithmetic to save. There the calls decide, even where the rule says forward:

grid[4, 16].claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# An exception: the bottleneck
# ----------------------------
# Where the network is narrow in its middle, neither mode is best. With 4 units between 256 inputs and 256 outputs, we
# take the Jacobian of the first half by rows, that of the second by columns, 4 passes each, and multiply.

encode, _ = network(256, 4)
decode, _ = network(4, 256)


def whole(x):
    return decode(encode(x))


def from_the_middle(x):
    return jacobian_forward(decode)(encode(x)) @ jacobian_reverse(encode)(x)


x = torch.randn(256, device=device)
ways = {"from the middle": from_the_middle, **recipes(whole)}
costs = count(ways, x)
costs

# %%
# ``compare`` checks that the three results agree before it times them.

costs.claim("from the middle", fewer_flops_than="jacobian_reverse", by=20)

# %%
times = compare(ways, x, rounds=9)
times

# %%
times.claim("from the middle", faster_than="jacobian_reverse")

# %%
# An exception: passes that differ
# --------------------------------
# A square Jacobian, and one mode far dearer: the reverse formula of :func:`torch.cumprod`, which must take care of
# zeros, is itself a loop over the entries. The forward formula is not.

ways = recipes(lambda x: torch.cumprod(x, 0))
x = 1 + torch.rand(256, device=device) / 100
costs = count(ways, x)
costs

# %%
costs.claim("jacobian_forward", fewer_operations_than="jacobian_reverse", by=10)

# %%
compare(ways, x, rounds=9).claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
# What breaks
# -----------
# Changing the mode should never change the answer. It does where the function stops a gradient with
# :class:`torch.no_grad`: reverse mode holds the norm constant, forward mode does not notice, and nothing is raised.


def normalised(x):
    with torch.no_grad():
        norm = x.norm()
    return x / norm


x = torch.tensor([3.0, 4.0], dtype=torch.float64)
print(jacobian_reverse(normalised)(x), jacobian_forward(normalised)(x), sep="\n")
torch.testing.assert_close(jacobian_reverse(normalised)(x), torch.eye(2, dtype=torch.float64) / 5)
assert not torch.allclose(jacobian_forward(normalised)(x), jacobian_reverse(normalised)(x)), (
    "torch's forward mode has come to respect no_grad: update the section What breaks of winner_map"
)

# %%
# Both modes respect ``detach``. It is the way to hold a value constant.

for recipe in recipes(lambda x: x / x.norm().detach()).values():
    torch.testing.assert_close(recipe(x), torch.eye(2, dtype=torch.float64) / 5)

# %%
# Takeaway
# --------
# Several times fewer passes decide, once the arithmetic outweighs the calls: :math:`n < m` forward, :math:`n > m`
# reverse. The exceptions: a function too small for its passes to matter, a bottleneck, which is best taken from the
# middle, and an operation whose two formulas differ in cost; the counts show the last two before any clock does.
