r"""
Can I read my derivative?
=========================

The Jacobian of a layer :math:`y = \tanh(Wx + b)` has a short formula, :math:`\mathrm{diag}(1 - y^2)\, W`. You can
compute it with a handful of tensor operations. But the call ``jacobian(layer)(x)`` also runs a lot of Python, which
builds a graph and checks arguments. For a small function this takes most of the time, and you do not see the formula.

``prepare`` records the operations of one call and leaves everything else out. What remains is a short program. You can
read it, and call it. The program is for this shape of ``x`` only. If the function branches on values, ``prepare``
raises an error.

**Answer:** Yes: call ``prepare(jacobian(f), x)`` and read ``.code``. The prepared function returns the same numbers,
and is several times faster if ``f`` is small. It works for ``hessian``, ``hvp``, ``batch_hessian`` and gradients, too.

.. code-block:: python

    import torch
    from torch.fx.experimental.proxy_tensor import make_fx
    from funcdiff import jacobian, prepare

    slope = prepare(jacobian(f), x)  # records, simplifies and checks
    print(slope.code)
    slope(x)  # the same numbers as jacobian(f)(x)
    print(make_fx(torch.func.jacrev(f))(x).code)  # in torch alone: not simplified
"""

# %%
# Use it
# ------
# We prepare the Jacobian of a layer with 16 inputs and 16 outputs, and print the program.

import torch

from funcdiff import hvp, jacobian, jacobian_forward, jacobian_reverse, prepare

torch.manual_seed(0)
weight, bias, x = torch.randn(16, 16) / 4, torch.randn(16), torch.randn(16)


def layer(x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


slope = prepare(jacobian_reverse(layer), x)
print(slope.code)

# %%
# This is Python. Each line is one tensor operation, and gives its result a name. These rules help to read it:
#
# * ``aten`` is torch's library of operations, ``torch.ops.aten``: ``aten.tanh`` is the operation behind ``torch.tanh``.
#   The word after the operation, such as ``default`` or ``Tensor``, names its variant for these types of arguments.
# * The arguments of the function stand before the asterisk, here ``x``. After it stand the tensors that the program
#   keeps: ``eye`` is an identity matrix, and ``t`` is the transposed weight. They are in ``slope.held``.
# * The number at the end of a name, as in ``mm_2``, distinguishes it from an earlier result of the same operation.
# * The program returns its results as a list. ``slope(x)`` returns what ``jacobian(layer)(x)`` does: a tensor.
#
# No graph is built, and ``vmap`` is gone. ``tanh_backward`` is an ordinary operation that multiplies its first argument
# by :math:`1 - y^2`. To run the program by itself, set ``aten = torch.ops.aten``, paste it under another name than that
# of your function, and pass it ``x`` and ``**slope.held``.
#
# Check it by hand
# ----------------
# We write beside each line which part of the formula :math:`\mathrm{diag}(1 - y^2)\, W` it computes.


def side_by_side(prepared, formulas):
    for line in prepared.code.splitlines()[1:-1]:
        name = line.split()[0]
        print(f"{formulas[name]:30} {line.strip()}")


in_reverse = {
    "unsqueeze": "x, as a matrix with one row",
    "mm": "W x",
    "squeeze": "W x, as a vector again",
    "add": "W x + b",
    "tanh": "y",
    "tanh_backward": "I diag(1 - y²)",
    "mm_2": "diag(1 - y²) W",
}
side_by_side(slope, in_reverse)

# %%
# The first five lines compute :math:`y`. Then ``tanh_backward`` multiplies the identity matrix by the slope
# :math:`1 - y^2`. The last line computes the product with the weight. At another point, the result is equal to the
# formula, too:

other = torch.randn(16)
y = layer(other)
torch.testing.assert_close(slope(other), (1 - y**2)[:, None] * weight)

# %%
# Forward mode is another program
# -------------------------------
# The program above is in reverse mode: it begins with the identity matrix at the outputs, and multiplies by :math:`W`
# at the end. Forward mode begins with the identity matrix at the inputs, and multiplies by :math:`W^T` first. It
# computes the transposed Jacobian, and transposes it at the end.

columns = prepare(jacobian_forward(layer), x)
in_forward = {
    "unsqueeze": "x, as a matrix with one row",
    "mm": "W x",
    "mm_2": "x times zeros: see below",
    "mm_3": "I Wᵀ",
    "view": "I Wᵀ, in another shape",
    "add": "I Wᵀ plus zeros",
    "squeeze": "W x, as a vector again",
    "squeeze_2": "Wᵀ, as a matrix again",
    "add_2": "W x + b",
    "tanh": "y",
    "tanh_backward": "Wᵀ diag(1 - y²)",
    "permute": "its transpose: diag(1 - y²) W",
}
side_by_side(columns, in_forward)
torch.testing.assert_close(columns(other), slope(other))

# %%
# One product is not in the formula. If the weight changed with ``x``, its change would be multiplied by ``x``. Torch's
# forward mode always computes this product. Here the weight is a constant, so its change is a matrix of zeros. The
# program keeps this matrix as ``expand``. We print the names of all kept tensors that contain only zeros:

zeros = [name for name, kept in columns.held.items() if not kept.any()]
print(zeros)
assert zeros == ["expand"]
assert all(kept.any() for kept in slope.held.values())  # in reverse mode there is none

# %%
# ``prepare`` does not remove the product, because zero times infinity is not zero. The program in reverse mode keeps no
# such matrix.
#
# Count
# -----
# ``prepare`` removes only what has no effect: copies of results that nobody changes, products with one, sums with zero,
# and operations that occur twice. What is the same at every call is computed once, when you prepare. A product of
# ``eye`` and the weight is not: you may write other numbers into the weight between two calls.


def sine_sum(x):
    return x.sin().sum()


product = prepare(lambda x, v: hvp(sine_sum, (x,), (v,)), x, x)
for name, prepared in {
    "reverse mode": slope,
    "forward mode": columns,
    "HVP of the sine sum": product,
}.items():
    before, after = prepared.operations
    print(f"{name:20} {before:3} operations recorded, {after} left")
print(product.code)
assert product.operations[1] == 3  # v * -sin(x)

# %%
# The last program is what you would write by hand. The Hessian of :math:`\sum_i \sin x_i` is diagonal, and its product
# with :math:`v` is :math:`-\sin(x)\, v`.
#
# Time
# ----
# How much faster is a prepared Jacobian? We compare it with ``jacobian``, which chooses the mode itself, and with
# torch's own ``jacrev``. The program that we time is that of ``jacobian``:

from torch.func import grad, jacrev, jvp

from funcdiff.measure import compare
from funcdiff.plots import plot

automatic = {"jacobian": jacobian(layer), "torch.func.jacrev": jacrev(layer)}
prepared_jacobian = prepare(jacobian(layer), x)
print(prepared_jacobian.code)
small = compare({"prepared": prepared_jacobian, **automatic}, x, rounds=15)
small

# %%
# The prepared program runs fewer operations, and hardly any Python around them. (*First call* is the time of the first
# call, which is not part of the median.)

small.claim("prepared", faster_than="torch.func.jacrev", by=4)

# %%
# A :term:`Hessian-vector product` has even fewer operations, so the gain is larger.

vector = torch.randn(2048)
products = {
    "hvp": lambda x, v: hvp(sine_sum, (x,), (v,)),
    "jvp of torch.func.grad": lambda x, v: jvp(grad(sine_sum), (x,), (v,))[1],
}
prepared_product = prepare(products["hvp"], vector, vector)
times = compare({"prepared": prepared_product, **products}, vector, vector, rounds=15)
gain = times.ratio("hvp", "prepared").median
plot(times, title=f"A prepared product of 2048 inputs is {gain:.2g}× faster than hvp")

# %%
# Compare it with the usual composition in torch:

times.claim("prepared", faster_than="jvp of torch.func.grad", by=10)

# %%
# Preparing takes time as well. From how many calls on does it pay? The number is the time to prepare, divided by the
# time saved in each call:

import time

start = time.perf_counter()
prepare(jacobian(layer), x)
took = time.perf_counter() - start
saved = small["jacobian"].median - small["prepared"].median
print(f"Preparing pays from {took / saved:.0f} calls on.")

# %%
# For another function it can be many times larger or smaller. :ref:`prepare-or-compile` explains why, and
# :func:`funcdiff.explain` predicts it. The first ``prepare`` of a program takes some seconds more, because PyTorch then
# loads its compiler. It is not counted here: this page prepared other functions before.
#
# If most of the time is arithmetic, little can be saved. We compare the Hessians of 100 rows for a network with two
# hidden layers of 1000 units, and expect a small gain at most.

from funcdiff import batch_hessian
from funcdiff.problems import study_network

network = study_network().requires_grad_(False)
rows = torch.randn(100, 5)
ways = {
    "prepared": prepare(batch_hessian(network), rows),
    "batch_hessian": batch_hessian(network),
}
wide = compare(ways, rows, rounds=9)
wide.claim("prepared", faster_than="batch_hessian")

# %%
# What goes wrong
# ---------------
# *The function branches on a value.* The recorded program has no branches: it does the same at each call. So
# ``prepare`` raises an error.


def branching(x):
    return x.sin() if x.sum() > 0 else x.cos()


try:
    prepare(jacobian(branching), x)
except RuntimeError as error:
    print(error)

# %%
# *You replace a tensor that the function uses.* If you write new numbers into the tensor, the program uses them. If you
# assign another tensor to the name, the next call raises an error.

weight.mul_(2)
torch.testing.assert_close(slope(x), jacobian(layer)(x))
weight = weight / 2
try:
    slope(x)
except RuntimeError as error:
    print(error)

# %%
# *You pass another shape, dtype or device.* The program was recorded for those of ``x``, so this raises an error, too.
# With ``again=True``, another program is recorded when arguments of another shape, dtype or device first come.

try:
    prepare(jacobian(torch.sin), x)(torch.ones(3))
except RuntimeError as error:
    print(error)
cubes = prepare(jacobian(lambda x: x**3), x, again=True)
print(tuple(cubes(torch.ones(3)).shape), tuple(cubes(torch.ones(5)).shape))

# %%
# Takeaway
# --------
# Prepare a finished derivative that you call often: ``prepare(jacobian(f), x)``. It returns the same numbers, runs only
# its operations, and can be read.
#
# * If most of the time is arithmetic, you gain little: measure first.
# * If a call reads values or draws random numbers, ``prepare`` raises an error: call the function itself.
# * If you replace a parameter or a layer, prepare again.
# * If you backpropagate through the result, as in training, prepare while the parameters require gradients.
# * If the function consists of many elementwise operations, also try :doc:`torch.compile <compiled>`, which fuses them.
#   Compiling takes much longer than preparing: see :ref:`prepare-or-compile`.
