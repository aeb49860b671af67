r"""
How much faster does torch.compile make derivatives?
====================================================

Each call of a small Jacobian runs a few short tensor operations, and a lot of Python around them. ``torch.compile``
records the operations once. Later calls run the recording and skip the Python. The first call pays for it: compiling
takes as long as very many calls.

A derivative is itself a function, ``jacobian(f)``. Compile this function, and not ``f`` inside it: when PyTorch
differentiates a compiled ``f``, it runs the original ``f`` instead.

**Answer:** Compile the derivative: ``torch.compile(jacobian(f))``. It becomes much faster if the function is small and
you call it often, and little faster if matrix products take the time.

.. code-block:: python

    from funcdiff import jacobian

    slope = torch.compile(jacobian(f))  # not jacobian(torch.compile(f))
    slope(x)  # the first call compiles
"""

# %%
# Use it
# ------
# We compile the Jacobian of a layer with 16 inputs and 16 outputs. To compile in a second instead of many, we name the
# backend ``aot_eager``, which only records. The default backend, used further down, also generates code.

import os
import tempfile
import warnings

import torch

from funcdiff import hessian, hvp_double_backward, jacobian, jacobian_forward, prepare

weight, bias, x = torch.randn(16, 16) / 4, torch.randn(16), torch.randn(16)


def predict(x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


# The tracer uses functions that torch itself has deprecated.
warnings.filterwarnings("ignore", "`torch.jit.script_method` is", DeprecationWarning)
warnings.filterwarnings("ignore", "`torch._prims_common.check` is", FutureWarning)

slope = torch.compile(jacobian(predict), backend="aot_eager")
print(tuple(slope(x).shape))

# %%
# Check it by hand
# ----------------
# With :math:`y = \tanh(Wx + b)` the Jacobian is :math:`\mathrm{diag}(1 - y^2)\, W`. The compiled Jacobian is equal to
# it, and so is that of torch's ``jacrev``.

from torch.func import jacfwd, jacrev, jvp, vmap

by_hand = (1 - predict(x) ** 2)[:, None] * weight
torch.testing.assert_close(slope(x), by_hand)
torch.testing.assert_close(jacrev(predict)(x), by_hand)

# %%
# Count
# -----
# A backend receives the graphs that ``torch.compile`` has recorded. Ours counts them and runs them unchanged. A single
# graph means that there is no return to Python in between, and each recipe becomes one.

graphs = []


def counting(graph, inputs):
    graphs.append(graph)
    return graph.forward


def energy(x):
    return predict(x).square().sum()


derivatives = {
    "jacobian": jacobian(predict),
    "jacobian_forward": jacobian_forward(predict),
    "hessian": hessian(predict),
    "hvp_double_backward": lambda x: hvp_double_backward(energy, (x,), (x,)),
}
for name, derivative in derivatives.items():
    graphs.clear()
    result = torch.compile(derivative, backend=counting, fullgraph=True)(x)
    torch.testing.assert_close(result, derivative(x))
    assert len(graphs) == 1
    print(f"{name:20} {len(graphs)} graph, {len(graphs[0].graph.nodes)} nodes")

# %%
# Time: a small function
# ----------------------
# Now we measure the gain. We use the default backend, Inductor, which generates C++. It keeps what it has compiled, so
# we give it an empty folder: then the first call below really compiles. Without a C++ compiler this page uses
# ``aot_eager``.

import torch._inductor.config as inductor

cache = tempfile.TemporaryDirectory()
os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
inductor.compile_threads = 1  # compile in this process
inductor.cpp.vec_isa_ok = True  # trust the processor's list of vector instructions

try:
    torch.compile(torch.sin)(x)
    backend = "inductor"
except torch._dynamo.exc.BackendCompilerFailed:
    backend = "aot_eager"
    print("No C++ compiler was found: the gains below are those of aot_eager.")
print("backend:", backend)

# %%
# We time the Jacobian as it is, compiled and prepared, and torch's ``jacrev``. The layer needs next to no arithmetic,
# so we expect a large gain. The first call is listed separately, because it compiles.

from funcdiff.measure import compare
from funcdiff.plots import plot

small = compare(
    {
        "jacobian": jacobian(predict),
        "compiled": torch.compile(jacobian(predict), backend=backend),
        "prepared": prepare(jacobian(predict), x),
        "jacrev": jacrev(predict),
    },
    x,
)
small

# %%
# We expect a factor of at least 2:

small.claim("compiled", faster_than="jacobian", by=2)

# %%
# The figure shows the same times. The gain is the distance from ``jacobian`` to ``compiled``.

gain = small.ratio("jacobian", "compiled").median
plot(small, title=f"Compiled, a layer's Jacobian runs at {gain:.3g}× the speed")

# %%
# The calls that follow must pay back the first one. This is how many it takes:

saved = small["jacobian"].median - small["compiled"].median
calls = small["compiled"].first / saved
print(f"{calls:,.0f} calls" if saved > 0 else "it is never paid back")

# %%
# The candidate *prepared* records the operations too, by :doc:`funcdiff.prepare <prepared>`, and generates no code. How
# much sooner is it ready, and how do its later calls compare?

import time

start = time.perf_counter()
prepare(jacobian(predict), x)
longer = small["compiled"].first / (time.perf_counter() - start)
print(f"Compiling takes {longer:.3g}× as long as preparing.")
print("compiled over prepared, later calls:", small.ratio("compiled", "prepared"))

# %%
# Time: a network
# ---------------
# In a network 5 -> 1000 -> 1000 -> 25 on 100 rows, matrix products take most of the time. Compiling does not change
# them. Only the operations between them can become faster.

from funcdiff import batch_jacobian
from funcdiff.problems import study_network

network, rows = study_network().requires_grad_(False), torch.randn(100, 5)
eager = batch_jacobian(network)
ways = {"batch_jacobian": eager, "compiled": torch.compile(eager, backend=backend)}
large = compare(ways, rows, rounds=15)
large

# %%
# We expect a smaller gain than for the layer:

large.claim("compiled", faster_than="batch_jacobian")

# %%
# What goes wrong
# ---------------
# *The derivative of a compiled function runs without compiling*, and nothing says so. Our backend receives no graph.
# Afterwards, even a plain call of this function is not compiled any more.

torch.compiler.reset()
graphs.clear()
inside = torch.compile(predict, backend=counting)
torch.testing.assert_close(jacrev(inside)(x), by_hand)
inside(x)
assert not graphs, "torch compiles inside a transform: update this section"
print("graphs compiled:", len(graphs))

# %%
# *The second derivative of a compiled function* raises an error in plain autograd. If you compile the Hessian-vector
# product instead, it works: for a sum of sines it is :math:`-\sin(x_i)\, v_i`.


def wave(x):
    return x.sin().sum()


leaf = x.clone().requires_grad_()
value = torch.compile(wave, backend="aot_eager")(leaf)
(gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
try:
    torch.autograd.grad(gradient.sum(), leaf)
except RuntimeError as error:
    print("RuntimeError:", error)
else:
    raise AssertionError("torch supports double backward here: update this section")

product = torch.compile(
    lambda x, v: hvp_double_backward(wave, (x,), (v,)),
    backend="aot_eager",
)
torch.testing.assert_close(product(x, x), -x.sin() * x)

# %%
# *A custom autograd function loses its own derivative.* Ours rounds its input and passes the gradient on unchanged, so
# that :math:`(\mathrm{round}(x)^2)' = 2\,\mathrm{round}(x)`.


class StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


# %%
# Compiled, torch differentiates the rounding itself, and the Jacobian is zero. No error is raised.


def quantised(x):
    return StraightThrough.apply(x).square()


# The tracer instantiates the class of the function, which torch itself discourages.
warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
point = torch.tensor([1.4, 2.6])
eager = jacrev(quantised)(point)
compiled = torch.compile(jacrev(quantised), backend="aot_eager")(point)
torch.testing.assert_close(eager, 2 * torch.diag(point.round()))
print("not compiled:", eager.tolist())
print("compiled:    ", compiled.tolist())
assert not compiled.any(), "torch keeps a custom derivative here: update this section"

# %%
# *Chunks of torch's forward mode do not compile*: ``vmap(jacfwd(f), chunk_size=...)``. The failed compilation also
# leaves torch inside forward mode, and the process then refuses every other use of it. We repair that by hand.

chunked = torch.compile(vmap(jacfwd(predict), chunk_size=4), backend="aot_eager")
many = torch.randn(8, 16)
try:
    chunked(many)
except torch._dynamo.exc.BackendCompilerFailed as error:
    print(str(error).split(", please")[0])
else:
    raise AssertionError("torch compiles chunks: update this section")
try:
    jvp(torch.sin, (x,), (x,))
except RuntimeError as error:
    print("A jvp afterwards:", error)
    torch._C._exit_dual_level(level=0)  # no public function undoes this

# %%
# The chunks of :func:`funcdiff.batch_jacobian` do compile.

batched = batch_jacobian(predict, chunk_size=4, jacobian=jacobian_forward)
result = torch.compile(batched, backend="aot_eager")(many)
torch.testing.assert_close(result, vmap(jacfwd(predict))(many))

torch.compiler.reset()
del os.environ["TORCHINDUCTOR_CACHE_DIR"]
cache.cleanup()

# %%
# Takeaway
# --------
# Compile the derivative of a small function that you call thousands of times with the same shapes, and compare its
# result once with that of the function that is not compiled.
#
# * If the function contains a custom autograd function, do not compile.
# * If matrix products take the time, first look for a recipe with fewer FLOPs.
# * If you cannot wait for the compiler, or have none, :doc:`prepare <prepared>` the derivative.
