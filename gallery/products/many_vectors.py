r"""
Many vectors at one point: products, or the whole Hessian?
==========================================================

Lanczos, conjugate gradients and trust regions ask for one product after another at the same point. Each call of an
HVP differentiates the function anew to get a gradient that has not changed; and at some number of vectors it would
have been cheaper to build the matrix.

**Answer:** :func:`funcdiff.hvp_operator` takes the gradient once. Vectors known in advance go through it under
``vmap``. Build :math:`H`, if it fits, once the vectors are so many that the measured crossover below is passed.
"""

# %%
# The function
# ------------
# Logistic regression: :math:`f(w) = \sum_i \log(1 + e^{z_i})` with :math:`z = Aw`, of 128 weights and 512 rows. One
# forward pass is one product with :math:`A`.

import warnings

import torch
from torch.func import grad, linearize, vmap
from torch.nn.functional import softplus

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
n, rows = 128, 512
A = torch.randn(rows, n, device=device) / n**0.5
w = torch.randn(n, device=device)
vectors = torch.randn(4 * n, n, device=device)


def loss(w):
    return softplus(A @ w).sum()


# %%
# By hand
# -------
# With :math:`s = \sigma(z)` the gradient is :math:`A^T s`, and :math:`Hv = A^T \bigl(s (1 - s) (Av)\bigr)`. By
# autograd: the gradient with its graph, once, and a reverse pass through that graph for each vector.

s = torch.sigmoid(A @ w)
expected = (vectors @ A.T * (s * (1 - s))) @ A


def operator_by_hand(func, x, *, keep=True):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(func(x), x, create_graph=True)
    return lambda v: torch.autograd.grad(slope, x, v, retain_graph=keep)[0]


by_hand = operator_by_hand(loss, w)
torch.testing.assert_close(torch.stack([by_hand(v) for v in vectors]), expected)

# %%
# The recipe
# ----------
# The same, with its checks; it composes with ``vmap``, for many vectors at once.

from funcdiff import hvp_double_backward, hvp_operator

operator = hvp_operator(loss, w)
torch.testing.assert_close(operator(vectors[0]), expected[0])
torch.testing.assert_close(vmap(operator)(vectors), expected)

# %%
# torch has one of its own, in forward mode: :func:`torch.func.linearize` traces the gradient at a point and returns
# its JVP. The tracer warns of constants it attaches, to no effect on the result.


def linear_operator(w):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Attempted to insert a get_attr Node")
        return linearize(grad(loss), w)[1]


torch.testing.assert_close(vmap(linear_operator(w))(vectors), expected)

# %%
# Five ways
# ---------
# Each from a point and :math:`k` vectors to :math:`k` products, its set-up included. The Hessian is built as the
# products with all unit vectors; it is symmetric, so that rows of vectors may stand on its left.


def anew(w, vectors):
    return torch.stack([hvp_double_backward(loss, (w,), (v,)) for v in vectors])


def one_by_one(w, vectors):
    operator = hvp_operator(loss, w)
    return torch.stack([operator(v) for v in vectors])


def together(w, vectors):
    return vmap(hvp_operator(loss, w))(vectors)


def linearized(w, vectors):
    linear = linear_operator(w)
    return torch.stack([linear(v) for v in vectors])


def built(w, vectors):
    matrix = vmap(hvp_operator(loss, w))(torch.eye(len(w), device=w.device))
    return vectors @ matrix


# %%
# Prediction
# ----------
# With :math:`F` for one forward pass: a gradient is 2, a product with its graph at hand 2 more. So :math:`k` products
# are :math:`4k` anew and :math:`2 + 2k` by an operator, against :math:`2 + 2n` for the matrix. By arithmetic alone
# building pays from :math:`k = n` on. We count for 16 vectors, in units of :math:`F`.

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

ways = {
    "anew": anew,
    "operator, one by one": one_by_one,
    "operator, vmap": together,
    "linearize": linearized,
    "H built": built,
}
costs = count(ways, w, vectors[:16])
costs

# %%
one_pass = count(loss, w).flops
print({name: round(cost.flops / one_pass, 1) for name, cost in costs.items()})
assert costs["anew"].flops == 4 * 16 * one_pass
assert costs["operator, one by one"].flops == costs["operator, vmap"].flops == (2 + 2 * 16) * one_pass

# %%
# A vector more costs ``linearize`` what it costs the operator; what it has to trace and fold first costs more.

first, second = (count({"a": linearized, "b": one_by_one}, w, vectors[:k]) for k in (1, 2))
assert second["a"].flops - first["a"].flops == second["b"].flops - first["b"].flops == 2 * one_pass
first

# %%
costs.claim("operator, vmap", fewer_operations_than="operator, one by one", by=5)

# %%
# The matrix must be held; so must the vectors that go together:

costs.claim("operator, one by one", smaller_peak_than="H built", by=5)

# %%
# Measurement
# -----------

times = compare(ways, w, vectors[:16], rounds=12, budget=1.0)
times

# %%
times.claim("operator, one by one", faster_than="anew")

# %%
times.claim("operator, vmap", faster_than="operator, one by one")

# %%
times.claim("operator, one by one", faster_than="linearize")

# %%
# Where building starts to pay
# ----------------------------
# We sweep over the number of vectors, from one to four times the number of inputs.

raced = {name: ways[name] for name in ("operator, one by one", "operator, vmap", "H built")}


def with_vectors(k):
    return raced, (w, vectors[:k])


study = sweep(with_vectors, [1, 4, 16, 64, 256, 512], label="vectors k, for n = 128 inputs", rounds=12)
plot(study, title="The matrix is paid for once, products by the vector")

# %%
# When the vectors come one after the other, as in Lanczos, the matrix has an advantage that the count does not see:
# its columns are taken together, where a product waits for the last.

study.crossover("operator, one by one", "H built")

# %%
# When they are known in advance, ``vmap`` takes them together too:

study.crossover("operator, vmap", "H built")

# %%
# What breaks
# -----------
# Written by hand without ``retain_graph`` the first product is right, and frees the graph that the second needs:

once = operator_by_hand(loss, w, keep=False)
torch.testing.assert_close(once(vectors[0]), expected[0])
try:
    once(vectors[1])
except RuntimeError as error:
    print("RuntimeError --", str(error).split(".")[0])
else:
    raise AssertionError("autograd now keeps the graph: update this section")

# %%
# And an operator belongs to its point. It holds a copy, so a step of an optimiser in place does not disturb it; nor
# does it follow. After a step we need a new one:

w.sub_(0.5 * grad(loss)(w))
torch.testing.assert_close(operator(vectors[0]), expected[0])
moved = hvp_operator(loss, w)(vectors[0])
assert not torch.allclose(moved, expected[0])

# %%
# Takeaway
# --------
# One point, many vectors: one operator, and ``vmap`` over the vectors that are known. Build the matrix when it fits,
# and there are about as many vectors as inputs, or fewer if they come one at a time and the crossover says so. The
# exception is memory: :math:`n^2` numbers rule the matrix out long before time does, and chunks of vectors, by
# ``vmap(operator, chunk_size=...)``, bound what goes together.
