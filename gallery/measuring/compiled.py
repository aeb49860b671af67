r"""
How much faster does torch.compile make derivatives?
====================================================

The Jacobian of a small layer consists of a few short tensor operations. Around them, each call runs a lot of Python,
and this takes most of the time. ``torch.compile`` turns the operations into one compiled program. Later calls run
this program and skip the Python.

The first call compiles, and this takes as long as very many ordinary calls. A new shape of the input can make torch
compile again. So compiling can pay if you call the same derivative many thousands of times, with inputs of one shape.
:func:`funcdiff.prepare` also skips the Python, and is ready much sooner.

**Answer:** Compile the derivative, as below, and measure: this removes the Python between the operations, so it helps
most if they are small and many, and it cannot make large matrix products faster. If ``prepare(jacobian(f), x)`` is as
fast, compiling never pays (:ref:`when each pays <prepare-or-compile>`). Do not compile the function inside, as in
``jacobian(torch.compile(f))``, because PyTorch then differentiates ``f`` without compiling.

.. code-block:: python

    import torch
    from funcdiff import jacobian

    slope = torch.compile(jacobian(f))  # or torch.compile(torch.func.jacrev(f))
    slope(x)  # this first call compiles; later calls are fast
"""

# %%
# Use it
# ------
# Our function is a layer with 16 inputs and 16 outputs. ``compiled`` is a function, too. It compiles at its first call.

import torch

from funcdiff import hessian, hvp_double_backward, jacobian, jacobian_forward, prepare

weight, bias, x = torch.randn(16, 16) / 4, torch.randn(16), torch.randn(16)


def predict(x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


slope = jacobian(predict)
compiled = torch.compile(slope)

# %%
# Before we measure, we set up the compiler; you do not need this cell. PyTorch stores compiled programs in a folder. We
# choose an empty folder, so that the first call really compiles. PyTorch generates C++. Without a C++ compiler we
# choose another backend (the part of ``torch.compile`` that makes the program).

import os
import tempfile

import torch._inductor.config as inductor

cache = tempfile.TemporaryDirectory()
os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
inductor.compile_threads = 1  # compile in this process
inductor.cpp.vec_isa_ok = True  # trust the processor's list of vector instructions
try:
    torch.compile(torch.sin)(x)
    backend = "inductor"  # the default
except torch._dynamo.exc.BackendCompilerFailed:
    backend = "aot_eager"
    compiled = torch.compile(slope, backend=backend)
    print("No C++ compiler was found: the gains below are those of aot_eager.")

# %%
# Now we time the Jacobian before and after compiling. We also time torch's ``jacrev`` and
# :doc:`funcdiff.prepare <prepared>`. The table lists the first call separately, because it compiles.

from torch.func import jacfwd, jacrev, jvp, vmap

from funcdiff.measure import compare
from funcdiff.plots import plot

candidates = {
    "jacobian": slope,
    "compiled": compiled,
    "prepared": prepare(slope, x),
    "jacrev": jacrev(predict),
}
small = compare(candidates, x)
small

# %%
# Compare ``jacobian`` with ``compiled``. We expect a factor of at least 2:

small.claim("compiled", faster_than="jacobian", by=2)

# %%
# The figure shows the same times. The gain is the distance from ``jacobian`` to ``compiled``.

gain = small.ratio("jacobian", "compiled").median
plot(small, title=f"Compiled, a layer's Jacobian runs at {gain:.3g}× the speed")

# %%
# How many calls does it take until the saved time exceeds the time of the first call? For other functions the number is
# very different: :ref:`prepare-or-compile` explains why.

saved = small["jacobian"].median - small["compiled"].median
calls = small["compiled"].first / saved
print(f"{calls:,.0f} calls" if saved > 0 else "no number of calls pays it back")

# %%
# ``prepare`` also records the operations once, but it does not compile them. So it is ready much sooner. We measure how
# much, and compare the later calls.

import time

start = time.perf_counter()
prepare(slope, x)
longer = small["compiled"].first / (time.perf_counter() - start)
print(f"Compiling takes {longer:.3g}× as long as preparing.")
print("compiled over prepared, later calls:", small.ratio("compiled", "prepared"))
faster = small.ratio("compiled", "prepared").median < 1
print("Beside prepare, compiling", "can pay." if faster else "never pays here.")

# %%
# Check it by hand
# ----------------
# With :math:`y = \tanh(Wx + b)` the Jacobian is :math:`\mathrm{diag}(1 - y^2)\, W`. The compiled Jacobian is equal to
# it. From here on we use the backend ``aot_eager``. It generates no C++, so it compiles in a second.

by_hand = (1 - predict(x) ** 2)[:, None] * weight
torch.testing.assert_close(torch.compile(slope, backend="aot_eager")(x), by_hand)

# %%
# Count
# -----
# A compiled program helps most if it contains the whole derivative. If ``torch.compile`` meets something that it cannot
# record, it makes two programs with ordinary Python in between. We count the programs. For this we write a backend,
# which receives each recorded program (a graph) and runs it unchanged. Each derivative becomes a single graph.

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
# Time: a network
# ---------------
# Our second function is a network with 5 inputs, two hidden layers of 1000 units, and 25 outputs, on 100 rows. Large
# matrix products take most of the time. Compiling does not make them faster, so it can only shorten the rest.

from funcdiff import batch_jacobian
from funcdiff.problems import study_network

network, rows = study_network().requires_grad_(False), torch.randn(100, 5)
ways = {
    "batch_jacobian": batch_jacobian(network),
    "compiled": torch.compile(batch_jacobian(network), backend=backend),
}
large = compare(ways, rows, rounds=15)
large

# %%
# If the compiled one is faster, this ratio is above 1. Below it: the number of calls until the first one is paid back.

print("batch_jacobian over compiled:", large.ratio("batch_jacobian", "compiled"))
saved = large["batch_jacobian"].median - large["compiled"].median
calls = large["compiled"].first / saved
print(f"{calls:,.0f} calls" if saved > 0 else "no number of calls pays it back")

# %%
# What goes wrong
# ---------------
# *You compile the function and not its derivative.* When PyTorch differentiates a compiled function, it runs the
# original function, without a warning. We see it because our backend receives no graph. Afterwards, even a plain call
# of the function is not compiled any more.

torch.compiler.reset()
graphs.clear()
inside = torch.compile(predict, backend=counting)
torch.testing.assert_close(jacrev(inside)(x), by_hand)
inside(x)
assert not graphs, "torch compiles inside a transform: update this section"
print("graphs compiled:", len(graphs))

# %%
# *You differentiate a compiled function twice.* With ``torch.autograd.grad``, this raises an error. Compile the
# Hessian-vector product instead. For a sum of sines it is :math:`-\sin(x_i)\, v_i`.


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

H = torch.compile(lambda v: hvp_double_backward(wave, (x,), (v,)), backend="aot_eager")
torch.testing.assert_close(H(x), -x.sin() * x)

# %%
# *Your function contains a custom autograd function.* Ours rounds its input, and its ``backward`` treats the rounding
# as :math:`x \mapsto x`, with the derivative 1. So the derivative of :math:`\mathrm{round}(x)^2` should be
# :math:`2\,\mathrm{round}(x)`.


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
# When torch compiles ``jacrev``, it ignores our ``backward`` and differentiates the rounding itself. The derivative is
# then zero, and no error is raised. :func:`funcdiff.jacobian` is right: it does not compile such a function.


def quantised(x):
    return StraightThrough.apply(x).square()


point = torch.tensor([1.4, 2.6])
eager = jacrev(quantised)(point)
wrong = torch.compile(jacrev(quantised), backend="aot_eager")(point)
torch.testing.assert_close(eager, 2 * torch.diag(point.round()))
print("not compiled:", eager.tolist(), "compiled:", wrong.tolist(), sep="\n")
assert torch.compile(jacobian(quantised), backend="aot_eager")(point).equal(eager)
assert not wrong.any(), "torch keeps a custom derivative here: update this section"

# %%
# *You compile torch's forward mode in chunks*, ``vmap(jacfwd(f), chunk_size=...)``. This raises an error. It also
# leaves torch in a wrong state: every later use of forward mode fails, until we repair the state by hand.

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
# If the function is small and you call the derivative many times, first :doc:`prepare <prepared>` it. Compile it if you
# call it many thousands of times and the compiled one is faster. Compare its result once with the eager one.
#
# * If the function contains a custom autograd function, do not compile. :func:`funcdiff.jacobian` leaves its derivative
#   out of the compiled code, so it stays right and does not become faster.
# * If matrix products take the time, compiling can only shorten the rest. Use a recipe with fewer FLOPs, as
#   ``batch_jacobian`` does.
