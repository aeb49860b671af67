r"""
What does torch.compile buy for derivatives?
============================================

A small Jacobian spends its time in Python and in torch's transforms, not in arithmetic. ``torch.compile`` writes all of
it as one program, once, and then runs that; the once takes as long as very many calls.

**Answer:** much for a small function called often, little where matrix products take the time. Compile *around* the
transform: what is compiled inside it runs eagerly, is refused, or has another derivative.
"""

# %%
# The function
# ------------
# A layer with 16 inputs and outputs, and a network 5 -> 1000 -> 1000 -> 25.

import os
import tempfile
import warnings

import torch
from torch.func import jacfwd, jacrev, jvp, vmap

from funcdiff.problems import study_network

weight, bias, x = torch.randn(16, 16) / 4, torch.randn(16), torch.randn(16)
network, rows = study_network().requires_grad_(False), torch.randn(100, 5)


def predict(x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


def energy(x):
    return predict(x).square().sum()


# %%
# By hand
# -------
# With :math:`y = \tanh(Wx + b)` the Jacobian is :math:`\mathrm{diag}(1 - y^2)\, W`. Written out, it is what a compiler
# should make of the transform: three operations more than the function.

by_hand = (1 - predict(x) ** 2)[:, None] * weight
torch.testing.assert_close(jacrev(predict)(x), by_hand)

# %%
# What compiles
# -------------
# A backend gets the graphs that ``torch.compile`` has traced. Ours counts them and runs them as they are. Every recipe
# is one graph, without a break; inside, those by plain autograd take the transform instead.

from funcdiff import hessian_taylor, hvp_double_backward, jacobian_forward, jacobian_reverse

graphs = []


def counting(graph, inputs):
    graphs.append(graph)
    return graph.forward


recipes = {
    "jacobian_reverse": jacobian_reverse(predict),
    "jacobian_forward": jacobian_forward(predict),
    "hessian_taylor": hessian_taylor(predict),
    "hvp_double_backward": lambda x: hvp_double_backward(energy, (x,), (x,)),
}
for name, recipe in recipes.items():
    graphs.clear()
    result = torch.compile(recipe, backend=counting, fullgraph=True)(x)
    torch.testing.assert_close(result, recipe(x))
    assert len(graphs) == 1
    print(f"{name:20} {len(graphs)} graph, {len(graphs[0].graph.nodes)} nodes")

# %%
# The compiler
# ------------
# The default backend, Inductor, writes C++, and needs a compiler. It keeps what it compiled; an empty folder makes the
# first call what a first call is. It would try each vector instruction set by a compilation; we take the processor's
# word for them, to keep this page quick.

import torch._inductor.config as inductor

cache = tempfile.TemporaryDirectory()
os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
inductor.compile_threads = 1  # in this process
inductor.cpp.vec_isa_ok = True
# Tracer and Inductor of torch 2.13 use what torch itself has deprecated.
warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
warnings.filterwarnings("ignore", "`torch._prims_common.check` is deprecated", FutureWarning)
warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)  # the tracer does, below

try:
    torch.compile(torch.sin)(x)
    backend = "inductor"
except torch._dynamo.exc.BackendCompilerFailed:
    backend = "aot_eager"
    print("No C++ compiler is found here. Below, the graphs are traced and run by torch's own kernels (aot_eager):")
    print("that saves the transforms' overhead, and is less than torch.compile buys.")
print(f"backend: {backend}")

# %%
# Prediction and measurement: where overhead decides
# --------------------------------------------------
# FLOPs are next to none, so the gain should be large. The first call is kept apart: it compiles.

from funcdiff.measure import compare
from funcdiff.plots import plot

small = compare({"jacrev": jacrev(predict), "compiled": torch.compile(jacrev(predict), backend=backend)}, x)
small

# %%
small.claim("compiled", faster_than="jacrev", by=2)

# %%
plot(small, title="The Jacobian of a layer, 16 inputs and outputs: eager and compiled")

# %%
saved = small["jacrev"].median - small["compiled"].median
if saved > 0:
    print(f"The first call of the compiled one is paid back after {small['compiled'].first / saved:,.0f} calls.")
else:
    print("The first call of the compiled one is never paid back.")

# %%
# Where arithmetic decides
# ------------------------
# The matrix products of the network are the same, compiled or not; to gain there are only the passes between them.

forward = vmap(jacfwd(network))
large = compare({"jacfwd": forward, "compiled": torch.compile(forward, backend=backend)}, rows, rounds=15)
large

# %%
large.claim("compiled", faster_than="jacfwd")

# %%
layer_gain, network_gain = small.ratio("jacrev", "compiled"), large.ratio("jacfwd", "compiled")
print(f"gain for the layer: {layer_gain} times; for the network: {network_gain} times")

# %%
# What breaks
# -----------
# *A transform of a compiled function runs eagerly*, with no word. Our backend sees no graph; and torch has by then made
# up its mind about this function, so that even a plain call of it is not compiled any more.

torch.compiler.reset()
graphs.clear()
inside = torch.compile(predict, backend=counting)
torch.testing.assert_close(jacrev(inside)(x), by_hand)
inside(x)
assert not graphs, "torch compiles inside a transform: update this section"

# %%
# *A second derivative of a compiled function is refused* by plain autograd. Compiled around the product with the
# Hessian, it works: for a sum of sines, :math:`-\sin(x_i)\, v_i`.


def wave(x):
    return x.sin().sum()


leaf = x.clone().requires_grad_()
(slope,) = torch.autograd.grad(torch.compile(wave, backend="aot_eager")(leaf), leaf, create_graph=True)
try:
    torch.autograd.grad(slope.sum(), leaf)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("torch has learnt double backward: update this section")

around = torch.compile(lambda x, v: hvp_double_backward(wave, (x,), (v,)), backend="aot_eager")
torch.testing.assert_close(around(x, x), -x.sin() * x)

# %%
# *A custom autograd function loses the derivative that it defines*. Rounding with a straight-through gradient: eager,
# :math:`(\mathrm{round}(x)^2)' = 2\,\mathrm{round}(x)`. Compiled, torch differentiates the rounding itself: zero.


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


def quantised(x):
    return StraightThrough.apply(x).square()


point = torch.tensor([1.4, 2.6])
eager, compiled = jacrev(quantised)(point), torch.compile(jacrev(quantised), backend="aot_eager")(point)
torch.testing.assert_close(eager, 2 * torch.diag(point.round()))
print(eager, compiled, sep="\n")
assert not compiled.any(), "torch keeps a custom derivative when compiling: update this section"

# %%
# *Chunks of forward mode do not compile*: ``vmap(jacfwd(f), chunk_size=...)``. Worse, the failed compilation never
# leaves forward mode, and from then on the process refuses all of it, until we leave it by hand.

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
    print(f"a jvp afterwards: {error}")
    torch._C._exit_dual_level(level=0)  # what the failed compilation left undone; there is no public way

# %%
# :func:`funcdiff.batch_jacobian` takes its chunks in a way that compiles.

from funcdiff import batch_jacobian

batched = torch.compile(batch_jacobian(predict, chunk_size=4, jacobian=jacobian_forward), backend="aot_eager")
torch.testing.assert_close(batched(many), vmap(jacfwd(predict))(many))

torch.compiler.reset()
del os.environ["TORCHINDUCTOR_CACHE_DIR"]
cache.cleanup()

# %%
# Takeaway
# --------
# Compile around the transform, for functions that are small and called thousands of times with the same shapes, and
# compare the results with the eager ones once. The exceptions: a function with a custom autograd function inside must
# stay eager; and where matrix products take the time, look for a recipe with fewer of them first.
