r"""
Can I read my derivative?
=========================

Underneath, a derivative is a short list of tensor operations. For a layer :math:`y = \tanh(Wx + b)` the Jacobian is
:math:`\mathrm{diag}(1 - y^2)\, W`. The operations are a product, a sum, a tanh, its slope, and a product again. In
``jacobian(layer)(x)`` you do not see them. They run inside transforms, graphs and checks, and for a small function
these take most of the time.

If we record the operations of one call, the rest can be left out. What remains is a short program that we can read and
call.

**Answer:** Yes: call ``prepare(jacobian(f), x)`` and read ``.code``. The prepared function returns the same numbers and
is many times faster for a small function. It works for ``hessian``, ``hvp``, ``batch_hessian`` and gradients alike.

.. code-block:: python

    from funcdiff import jacobian, prepare

    slope = prepare(jacobian(f), x)  # records, simplifies and checks
    slope(x), print(slope.code)
"""

# %%
# Use it
# ------
# We prepare the Jacobian of a layer with 16 inputs and 16 outputs, and print the program that is left.

import torch

from funcdiff import hvp, jacobian, jacobian_forward, jacobian_reverse, prepare

torch.manual_seed(0)
weight, bias, x = torch.randn(16, 16) / 4, torch.randn(16), torch.randn(16)


def layer(x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


slope = prepare(jacobian_reverse(layer), x)
print(slope.code)

# %%
# This is a Python function that you could paste and run. Each line is one tensor operation and gives its result a name.
# How to read it:
#
# * ``aten`` is torch's library of operations, ``torch.ops.aten``: ``aten.tanh`` is the operation behind ``torch.tanh``.
#   The word after the operation, such as ``default`` or ``Tensor``, names its variant for these types of arguments.
# * The arguments of the function stand before the asterisk, here ``x``. After it stand the tensors that the program
#   keeps: what ``layer`` uses, and what was computed once because it cannot change. ``eye`` is an identity matrix, and
#   ``t`` is the transposed weight.
# * A number at the end of a name, as in ``mm_2``, tells it from an earlier result of the same operation.
#
# No trace of autograd or of ``vmap`` is left.
#
# Check it by hand
# ----------------
# By hand, :math:`y = \tanh(Wx + b)` has the Jacobian :math:`\mathrm{diag}(1 - y^2)\, W`. We write beside each line
# which part of this formula it computes.

formulas = {
    "unsqueeze": "x, as a matrix with one row",
    "mm": "W x",
    "squeeze": "W x, as a vector again",
    "add": "W x + b",
    "tanh": "y",
    "tanh_backward": "I diag(1 - y²)",
    "mm_2": "diag(1 - y²) W",
}
for line in slope.code.splitlines()[1:-1]:
    name = line.split()[0]
    print(f"{formulas[name]:28} {line.strip()}")

# %%
# The first five lines compute :math:`y`, which the slope of ``tanh`` needs. Then ``tanh_backward`` multiplies its first
# argument by that slope, :math:`1 - y^2`. The first argument is the identity matrix, with one row for each output. The
# last line multiplies by the weight. At another point, the result is equal to the formula:

other = torch.randn(16)
y = layer(other)
torch.testing.assert_close(slope(other), (1 - y**2)[:, None] * weight)

# %%
# Forward mode is another program
# -------------------------------
# Reverse mode starts with the identity at the outputs and multiplies by :math:`W` last. Forward mode starts with the
# identity at the inputs and multiplies by :math:`W` first. The results agree.

columns = prepare(jacobian_forward(layer), x)
print(columns.code)
torch.testing.assert_close(columns(other), slope(other))

# %%
# The product of ``eye`` and ``t`` is the step that the formula needs. There is one more matrix product. A constant such
# as the weight has a zero :term:`tangent`, and torch's forward mode multiplies by it. We look for kept tensors of
# zeros, and for the line that uses them.

zeros = [name for name, kept in columns.held.items() if not kept.any()]
for line in columns.code.splitlines()[1:]:
    if any(name in line for name in zeros):
        print(line.strip())
assert zeros, "torch multiplies by no zeros here: update this section"
assert all(kept.any() for kept in slope.held.values())

# %%
# ``prepare`` leaves this product in place, because zero times infinity is not zero. Reverse mode keeps no zeros.
#
# Count
# -----
# What may be left out? Only what provably has no effect: copies of results that nobody changes, views of views,
# products with one, sums with zero, operations that are computed twice, and what depends on nothing that can change.

energy = prepare(lambda x, v: hvp(lambda x: x.sin().sum(), (x,), (v,)), x, x)
for name, prepared in {
    "reverse mode": slope,
    "forward mode": columns,
    "HVP of the sine sum": energy,
}.items():
    before, after = prepared.operations
    print(f"{name:20} {before:3} operations recorded, {after} left")
print(energy.code)
assert energy.operations[1] == 3  # v * -sin(x)

# %%
# The last program is the answer that you would write by hand: the Hessian of :math:`\sum_i \sin x_i` is diagonal, and
# its product with :math:`v` is :math:`-\sin(x)\, v`.
#
# Time
# ----
# The program runs the same operations without the machinery. How much faster is it? We compare it with the automatic
# recipe and with torch's own ``jacrev``.

from torch.func import grad, jacrev, jvp

from funcdiff.measure import compare
from funcdiff.plots import plot

automatic = {"jacobian": jacobian(layer), "torch.func.jacrev": jacrev(layer)}
small = compare({"prepared": prepare(jacobian(layer), x), **automatic}, x, rounds=15)
small

# %%
# The prepared Jacobian computes the same operations without the machinery:

small.claim("prepared", faster_than="torch.func.jacrev", by=4)

# %%
# For a :term:`Hessian-vector product` the gain is larger, because there are even fewer operations among the machinery.


def sine_sum(x):
    return x.sin().sum()


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
# torch's own composition takes the longest:

times.claim("prepared", faster_than="jvp of torch.func.grad", by=10)

# %%
# Preparing takes time as well. It pays as soon as the calls have saved as much as it took.

import time

start = time.perf_counter()
prepare(jacobian(layer), x)
took = time.perf_counter() - start
saved = small["jacobian"].median - small["prepared"].median
print(f"Preparing pays from {took / saved:.0f} calls on.")

# %%
# If the arithmetic is large, there is little machinery to save. We compare the Hessian of each of 100 rows for a
# network with two hidden layers of 1000 units, and expect a small gain at most.

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
# The recorded program has no branches, so it does the same at each call. ``prepare`` therefore refuses a function that
# branches on a value.


def branching(x):
    return x.sin() if x.sum() > 0 else x.cos()


try:
    prepare(jacobian(branching), x)
except RuntimeError as error:
    print(error)

# %%
# The program keeps references to the tensors that the function uses. If you write into such a tensor, the program sees
# the new numbers. If you replace it by another tensor, the next call raises an error.

weight.mul_(2)
torch.testing.assert_close(slope(x), jacobian(layer)(x))
weight = weight / 2
try:
    slope(x)
except RuntimeError as error:
    print(error)

# %%
# The shapes, dtypes and devices of the arguments are part of the program too. With ``again=True``, arguments of another
# kind are prepared when they first come.

cubes = prepare(jacobian(lambda x: x**3), x, again=True)
print(tuple(cubes(torch.ones(3)).shape), tuple(cubes(torch.ones(5)).shape))

# %%
# Takeaway
# --------
# Prepare a finished derivative that you call often: ``prepare(jacobian(f), x)``. It returns the same numbers, costs
# only its operations, and can be read.
#
# * If the arithmetic takes longer than the calls, you gain little: measure first.
# * If a call reads values or draws random numbers, ``prepare`` refuses it: call the function itself.
# * If you replace a parameter or a layer, prepare again.
# * If you train through the result, prepare while the parameters require gradients: the result then carries them.
# * If the function consists of many elementwise operations, also try :doc:`torch.compile <compiled>`, which fuses them.
#   Compiling takes much longer than preparing.
