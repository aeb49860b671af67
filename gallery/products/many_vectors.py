r"""
Many vectors at one point: products, or the whole Hessian?
==========================================================

A Hessian-vector product takes two steps: compute the gradient at :math:`x`, then differentiate it in the direction
:math:`v`. Each step costs about two evaluations. Lanczos iterations and conjugate gradients multiply by many vectors at
one point. The first step is then the same for all of them, so it is enough to do it once.

Suppose there are :math:`n = 128` inputs and 16 vectors. Separate products cost :math:`4 \cdot 16 = 64` evaluations. If
the gradient is kept, they cost :math:`2 + 2 \cdot 16 = 34`. The whole Hessian needs one product for each input,
:math:`2 + 2 \cdot 128 = 258`, and then serves any number of vectors.

**Answer:** Keep the gradient: call :func:`funcdiff.hvp_operator` once for a point. If you know all vectors in advance,
use it under ``vmap``. If there are about as many vectors as inputs and the matrix fits in memory, compute it with
:func:`funcdiff.hessian`.

.. code-block:: python

    from funcdiff import hvp_operator

    operator = hvp_operator(func, x)
    Hv = operator(v)  # for many: torch.func.vmap(operator)(vectors)
"""

# %%
# Use it
# ------
# Our function is the loss of a logistic regression with 128 weights and 512 rows, :math:`f(w) = \sum_i \log(1 +
# e^{z_i})` with :math:`z = Aw`. We make the operator at one point. Then we multiply by one vector, and with
# :term:`vmap` by all rows of a matrix of 512 vectors.

import torch
from torch.func import vmap
from torch.nn.functional import softplus

from funcdiff import hvp_operator

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
n, rows = 128, 512
A = torch.randn(rows, n, device=device) / n**0.5
w = torch.randn(n, device=device)
vectors = torch.randn(4 * n, n, device=device)


def loss(w):
    return softplus(A @ w).sum()


operator = hvp_operator(loss, w)
one, all_of_them = operator(vectors[0]), vmap(operator)(vectors)
print(tuple(one.shape), tuple(all_of_them.shape))

# %%
# Check it by hand
# ----------------
# Let :math:`s = \sigma(z)` be the sigmoid. The gradient is :math:`A^T s`, and the product is
# :math:`Hv = A^T \bigl(s (1 - s) (Av)\bigr)`.

s = torch.sigmoid(A @ w)
expected = (vectors @ A.T * (s * (1 - s))) @ A
torch.testing.assert_close(one, expected[0])
torch.testing.assert_close(all_of_them, expected)

# %%
# By hand the operator is a few lines of autograd: the gradient with its graph, once, and then one backward pass through
# this graph for each vector.


def operator_by_hand(func, x, *, keep=True):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(func(x), x, create_graph=True)
    return lambda v: torch.autograd.grad(gradient, x, v, retain_graph=keep)[0]


by_hand = operator_by_hand(loss, w)
torch.testing.assert_close(torch.stack([by_hand(v) for v in vectors]), expected)

# %%
# torch has an operator as well, in :term:`forward mode`: :func:`torch.func.linearize` traces the gradient at a point
# and returns its :term:`JVP`. It warns about constants that it attaches; the result does not change, so we ignore the
# warning.

import warnings

from torch.func import grad, linearize


def linear_operator(w):
    with warnings.catch_warnings():
        # ``linearize`` warns about each tensor that the loss captures, and works.
        warnings.filterwarnings("ignore", "Attempted to insert a get_attr Node")
        return linearize(grad(loss), w)[1]


torch.testing.assert_close(vmap(linear_operator(w))(vectors), expected)

# %%
# Five methods
# ------------
# Each method takes the point and :math:`k` vectors, and returns :math:`k` products. The time to set up is included. In
# the last method the vectors are rows, and :math:`H` is symmetric, so we may multiply from the left.

from funcdiff import hessian, hvp


def hvp_each(w, vectors):
    return torch.stack([hvp(loss, (w,), (v,)) for v in vectors])


def operator_each(w, vectors):
    operator = hvp_operator(loss, w)
    return torch.stack([operator(v) for v in vectors])


def operator_vmap(w, vectors):
    return vmap(hvp_operator(loss, w))(vectors)


def linearize_each(w, vectors):
    linear = linear_operator(w)
    return torch.stack([linear(v) for v in vectors])


def hessian_first(w, vectors):
    return vectors @ hessian(loss)(w)


methods = {
    "hvp": hvp_each,
    "hvp_operator": operator_each,
    "hvp_operator, vmap": operator_vmap,
    "linearize": linearize_each,
    "hessian": hessian_first,
}
for method in methods.values():
    torch.testing.assert_close(method(w, vectors[:3]), expected[:3])

# %%
# Count
# -----
# Let :math:`F` be the FLOPs (floating-point operations) of one evaluation, which is one :term:`pass`. A gradient needs
# 2, and a product after it 2 more. So :math:`k` calls of ``hvp`` need :math:`4k`, the operator needs :math:`2 + 2k`,
# and the matrix :math:`2 + 2n`. The matrix is cheaper from about :math:`k = n` on. We count 16 vectors.

from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

costs = count(methods, w, vectors[:16])
costs

# %%
# The table shows FLOPs. In units of :math:`F` they are:

one_pass = count(loss, w).flops
for name, cost in costs.items():
    print(f"{name:20} {cost.flops / one_pass:6.1f} F")
assert costs["hvp"].flops == 4 * 16 * one_pass
assert costs["hvp_operator"].flops == (2 + 2 * 16) * one_pass
assert costs["hvp_operator, vmap"].flops == (2 + 2 * 16) * one_pass

# %%
# One more vector costs ``linearize`` as much as it costs the operator. Its set-up costs more. We count one vector and
# two vectors.

pair = {name: methods[name] for name in ("linearize", "hvp_operator")}
first, second = (count(pair, w, vectors[:k]) for k in (1, 2))
for name in pair:
    assert second[name].flops - first[name].flops == 2 * one_pass
first

# %%
# Look at the FLOPs and the number of operations for one vector: an :term:`operation` is one call into torch's library.
# With ``vmap``, each operation handles all vectors at once, so there are far fewer:

costs.claim("hvp_operator, vmap", fewer_operations_than="hvp_operator", by=5)

# %%
# The peak of memory differs, too. One vector at a time needs less than the matrix:

costs.claim("hvp_operator", smaller_peak_than="hessian", by=5)

# %%
# Time
# ----
# Do the times follow the FLOPs? We time the five methods for 16 vectors.

times = compare(methods, w, vectors[:16], rounds=12, budget=1.0)
times

# %%
# The ratio says how many times as long as the fastest method each one takes. The operator computes the gradient once
# instead of 16 times:

times.claim("hvp_operator", faster_than="hvp")

# %%
# We expect one call for all vectors to save more:

times.claim("hvp_operator, vmap", faster_than="hvp_operator")

# %%
# Compared with torch's own operator:

times.claim("hvp_operator", faster_than="linearize")

# %%
# When is the matrix faster?
# --------------------------
# The matrix costs the same for any number of vectors, and every product costs more time. So from some number on, the
# matrix is faster. We increase the number of vectors from 1 to 512, which is four times the number of inputs.

raced = {
    name: methods[name] for name in ("hvp_operator", "hvp_operator, vmap", "hessian")
}


def with_vectors(k):
    return raced, (w, vectors[:k])


sizes = [1, 4, 16, 64, 256, 512]
study = sweep(with_vectors, sizes, label="vectors k, for n = 128 inputs", rounds=12)
crossover = study.crossover("hvp_operator", "hessian")
plot(study, title=str(crossover))

# %%
# The curve of ``hessian`` should be nearly flat, because one more vector adds only one row to one product. The other
# curves should rise. The operator, one vector at a time, and the matrix cross here:

crossover

# %%
# According to the FLOPs they would cross at 128 vectors. The crossing can be lower, because all columns of the matrix
# are computed together. If you know the vectors in advance, ``vmap`` computes their products together as well:

study.crossover("hvp_operator, vmap", "hessian")

# %%
# What goes wrong
# ---------------
# If you write the operator by hand without ``retain_graph``, the first product is right. It also frees the graph, so
# the second product fails.

from textwrap import fill

once = operator_by_hand(loss, w, keep=False)
torch.testing.assert_close(once(vectors[0]), expected[0])
try:
    once(vectors[1])
except RuntimeError as error:
    print(fill(str(error).split(". ")[0], 84))
else:
    raise AssertionError("autograd keeps the graph now: update this section")

# %%
# An operator belongs to its point. It keeps a copy, so that a step of an optimiser, which changes the weights in place,
# does not change it. After a step you need a new operator.

w.sub_(0.5 * grad(loss)(w))
torch.testing.assert_close(operator(vectors[0]), expected[0])
moved = hvp_operator(loss, w)(vectors[0])
assert not torch.allclose(moved, expected[0])

# %%
# Takeaway
# --------
# For many vectors at one point, make one operator, and use ``vmap`` if you know the vectors. The exceptions are:
#
# * If there are about as many vectors as inputs, compute the matrix with ``hessian``. If the vectors come one at a
#   time, this pays earlier: measure it as above.
# * If :math:`n^2` numbers do not fit in memory, use products, however many there are.
# * If the products of all vectors together do not fit in memory, use ``vmap(operator, chunk_size=...)``.
