r"""
Many vectors at one point: products, or the whole Hessian?
==========================================================

Some methods multiply the Hessian at one point :math:`x` by many vectors. Conjugate gradients solve linear systems in
this way, and Lanczos' method finds eigenvalues. Each product takes two steps: compute the gradient at :math:`x`, then
differentiate it in the direction :math:`v`. The first step is the same for all vectors, so you can do it once and keep
the result. In torch alone, ``vjp`` of ``grad`` does this: it returns the gradient and a function that makes the second
step for any vector.

How much does this save? Each step costs about as much as two evaluations of the function. For 16 vectors, separate
products cost :math:`(2 + 2) \cdot 16 = 64` evaluations. If you keep the gradient, they cost
:math:`2 + 2 \cdot 16 = 34`. You can also compute the whole Hessian first. For 128 inputs it costs as much as 128
products, :math:`2 + 2 \cdot 128 = 258`, and then serves any number of vectors.

**Answer:** Call :func:`funcdiff.hvp_operator` once at the point: it keeps the gradient, and you call the result with
each vector. If you know all vectors in advance, use ``vmap``. If there are about as many vectors as inputs and the
matrix fits in memory, compute it with :func:`funcdiff.hessian`.

.. code-block:: python

    import torch
    from funcdiff import hvp_operator

    f, x = lambda x: (x**3).sum(), torch.tensor([1.0, 2.0])
    product = hvp_operator(f, x)  # computes and keeps the gradient
    print(product(torch.tensor([1.0, 1.0])))  # tensor([ 6., 12.])
    print(torch.func.vmap(product)(torch.eye(2)))  # several: one in each row
    gradient, product = torch.func.vjp(torch.func.grad(f), x)  # then product(v)[0]
"""

# %%
# Use it
# ------
# Our function is the loss of a logistic regression with 128 weights :math:`w`. The data are the 512 rows of a matrix
# :math:`A`, and :math:`f(w) = \sum_i \log(1 + e^{z_i})` with :math:`z = Aw`. We make the operator at one point. Then we
# multiply by one vector, and with :term:`vmap` by 512 vectors at once.

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
# You can write the operator yourself with autograd. Compute the gradient once with ``create_graph=True``, so that torch
# can differentiate it. Then make one backward pass through the gradient for each vector.


def operator_by_hand(func, x, *, keep=True):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(func(x), x, create_graph=True)
    return lambda v: torch.autograd.grad(gradient, x, v, retain_graph=keep)[0]


by_hand = operator_by_hand(loss, w)
torch.testing.assert_close(torch.stack([by_hand(v) for v in vectors]), expected)

# %%
# torch has such an operator as well, :func:`torch.func.linearize`. It uses :term:`forward mode`: it records the
# gradient at a point and returns a function that computes its :term:`JVP`. It warns about each tensor that the loss
# uses. The result is right, so we ignore the warning.

import warnings

from torch.func import grad, linearize


def linear_operator(w):
    with warnings.catch_warnings():
        # ``linearize`` warns about each tensor that the loss uses, and works.
        warnings.filterwarnings("ignore", "Attempted to insert a get_attr Node")
        return linearize(grad(loss), w)[1]


torch.testing.assert_close(vmap(linear_operator(w))(vectors), expected)

# %%
# Five methods
# ------------
# We compare five methods. Each takes the point and :math:`k` vectors, and returns :math:`k` products. The gradient or
# the Hessian is computed inside, so its time is included.

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
    return vectors @ hessian(loss)(w)  # the vectors are rows, and H is symmetric


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
# :math:`2F`, and each product after it :math:`2F` more. So :math:`k` calls of ``hvp`` need :math:`4kF`, the operator
# needs :math:`(2 + 2k) F`, and the matrix :math:`(2 + 2n) F`. If there are more vectors than inputs, :math:`k > n`, the
# matrix needs the fewest. To multiply the finished matrix by the vectors costs little beside that. We count 16 vectors.

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
# For each further vector, ``linearize`` needs as many FLOPs as ``hvp_operator``. The first vector costs it more. We
# count one vector and two vectors.

pair = {name: methods[name] for name in ("linearize", "hvp_operator")}
first, second = (count(pair, w, vectors[:k]) for k in (1, 2))
for name in pair:
    assert second[name].flops - first[name].flops == 2 * one_pass
first

# %%
# The table is for one vector. Now go back to 16 vectors. With ``vmap``, each :term:`operation` (one computation on
# whole tensors) runs once for all vectors, so there are far fewer:

costs.claim("hvp_operator, vmap", fewer_operations_than="hvp_operator", by=5)

# %%
# The peak, the largest memory in use, differs as well. One vector at a time needs less than the matrix:

costs.claim("hvp_operator", smaller_peak_than="hessian", by=5)

# %%
# Time
# ----
# Do the times follow the FLOPs? We time the five methods for 16 vectors.

times = compare(methods, w, vectors[:16], rounds=12, budget=1.0)
times

# %%
# The column *ratio to fastest* says how many times as long a method takes as the first one. The operator computes
# the gradient once instead of 16 times:

times.claim("hvp_operator", faster_than="hvp")

# %%
# We expect ``vmap`` over all vectors to save more:

times.claim("hvp_operator, vmap", faster_than="hvp_operator")

# %%
# Compared with torch's own operator:

times.claim("hvp_operator", faster_than="linearize")

# %%
# When is the matrix faster?
# --------------------------
# The matrix takes a fixed time, and then each vector costs next to nothing. Products take more time with each vector.
# So from some number of vectors on, the matrix is faster. We increase this number from 1 to 512, four times the number
# of inputs.

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
# The curve of ``hessian`` should be nearly flat, and the other curves should rise. The operator with one vector at a
# time takes as long as the matrix at this number of vectors:

crossover

# %%
# According to the FLOPs, it would be 128 vectors. It can be fewer, because the columns of the matrix are computed
# together. With ``vmap``, the products are computed together as well:

study.crossover("hvp_operator, vmap", "hessian")

# %%
# What goes wrong
# ---------------
# *You write the operator by hand without* ``retain_graph``. The first product is right. But this backward pass frees
# the intermediate results of the gradient, so the second product raises an error.

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
# *You use an operator after a step of an optimiser.* An operator belongs to its point and keeps a copy of it. The
# optimiser changes the weights, but the operator still multiplies by the Hessian at the old weights. Make a new
# operator after each step.

w.sub_(0.5 * grad(loss)(w))
torch.testing.assert_close(operator(vectors[0]), expected[0])
moved = hvp_operator(loss, w)(vectors[0])
assert not torch.allclose(moved, expected[0])

# %%
# Takeaway
# --------
# For many vectors at one point, make one operator, and use ``vmap`` if you know the vectors. If they are the columns of
# a matrix, ``product @ V`` does the same. The exceptions are:
#
# * If there are about as many vectors as inputs, compute the matrix with ``hessian``. If the vectors come one at a
#   time, so that ``vmap`` cannot be used, the matrix pays for fewer vectors already: measure it as above.
# * If :math:`n^2` numbers do not fit in memory, use products, however many there are.
# * If the products of all vectors together do not fit in memory, use ``vmap(operator, chunk_size=...)``.
