"""
How do we measure, and what goes wrong otherwise?
=================================================

A time without its spread, its threads and its machine persuades, and often misleads: the same two functions can
come out in either order.

**Answer:** time the candidates side by side, take their ratio round by round, and let no sentence say more than its
interval; where a cost can be counted, count it instead.
"""

import subprocess
import sys
import time
from timeit import Timer

import torch
from torch.func import jacfwd, jacrev
from torch.utils.benchmark import Timer as TorchTimer

from funcdiff.measure import compare, count, environment
from funcdiff.plots import plot

# %%
# The function
# ------------
# Two ways to one Jacobian, of a layer with as many outputs as inputs.

torch.manual_seed(0)
weight, bias, x = torch.randn(16, 16), torch.randn(16), torch.randn(16)


def predict(x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


reverse, forward = jacrev(predict), jacfwd(predict)
torch.testing.assert_close(reverse(x), forward(x))

# %%
# What breaks
# -----------
# Four habits give numbers that mean nothing: to count the first call, to take one sample, to time one candidate after
# the other, to use more threads than there are free cores. Each is run below; then the way we do it.
#
# The first call
# --------------
# Whatever runs first pays for loading, tracing and compiling, which no later call repeats. Counted in, it is charged
# to one candidate only.


def seconds(func, calls=1):
    return Timer(lambda: func(x)).timeit(calls) / calls


first, later = seconds(forward), seconds(forward, calls=100)
print(f"first call: {first / later:.1f} times a later one")

# %%
# One sample has no spread
# ------------------------
# ``timeit(500)`` of torch's benchmark timer averages 500 calls into *one* sample. Its interquartile range is zero, not
# because the machine was quiet, but because one number has none.

timer = TorchTimer("f(x)", globals={"f": reverse, "x": x})
one, many = timer.timeit(500), timer.blocked_autorange(min_run_time=0.2)
print(f"timeit(500):       n = {len(one.times)}, IQR / median = {one.iqr / one.median:.3f}")
print(f"blocked_autorange: n = {len(many.times)}, IQR / median = {many.iqr / many.median:.3f}")
assert one.iqr == 0

# %%
# One after the other, on a busy machine
# --------------------------------------
# Here a neighbour comes while the second candidate is timed: one process a core, that does nothing but compute. The
# two candidates are *the same function*, so their true ratio is 1.


class Neighbours:
    def __enter__(self):
        burn = [sys.executable, "-c", "while True: pass"]
        self.processes = [subprocess.Popen(burn) for _ in range(environment().cores)]
        time.sleep(0.3)  # until they run

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.wait()


alone = seconds(reverse, calls=500)
with Neighbours():
    crowded = seconds(reverse, calls=500)
print(f"the same function, one after the other: {crowded / alone:.2f} times")

# %%
# Interleaved in random order, both meet the neighbours alike. Samples are short and taken right after a nap, so that
# most fit into one slice of the scheduler; the median of the ratios leaves the others out. A short call is made once
# more before the clock starts: the nap and the other candidates leave the caches cold.

same = {"reverse": reverse, "reverse again": lambda x: reverse(x)}
with Neighbours():
    comparison = compare(same, x)
comparison.claim("reverse", faster_than="reverse again")

# %%
# Threads that have no core
# -------------------------
# Two threads share the work of a large product, and wait for each other at its end. When a neighbour holds one's core,
# both stand still. So we measure with one thread, unless threads are the subject, and the table says how many.

a = torch.randn(512, 512)
for threads in (1, 2):
    with Neighbours():
        product = compare({"product": torch.mm}, a, a, threads=threads)["product"]
    print(f"{threads} thread(s), busy machine: IQR / median = {product.iqr / product.median:.2f}")

# %%
# The measurement
# ---------------
# ``compare`` first checks that the results agree. Then the first call is kept apart; samples are long enough for the
# clock; garbage collection is off; an accelerator is waited for. The interval holds the true median ratio with 99 %
# confidence, from the order of the samples alone: no outlier, however large, moves it.

comparison = compare({"reverse": reverse, "forward": forward}, x, costs=True)
comparison

# %%
plot(comparison, title="Jacobian, 16 inputs, 16 outputs")

# %%
# A claim states what we expect, and prints what was measured. It says so where the interval holds 1, and where the run
# contradicts us.

comparison.claim("reverse", faster_than="forward")

# %%
# This one is likely to be contradicted, and shows what that looks like.

comparison.claim("forward", faster_than="reverse", by=2)

# %%
# Counting instead
# ----------------
# Matrix FLOPs, operations and the peak of memory have no noise. A claim on them that is false stops the build of this
# site. On tensors of ``device="meta"`` nothing is computed, so that a call can be counted that would never fit.

net = torch.nn.Sequential(torch.nn.Linear(5, 1000), torch.nn.ELU(), torch.nn.Linear(1000, 25)).to("meta")
point = torch.empty(5, device="meta")
costs = count({"forward over reverse": jacfwd(jacrev(net)), "reverse over reverse": jacrev(jacrev(net))}, point)
costs

# %%
costs.claim("forward over reverse", fewer_flops_than="reverse over reverse", by=2)

# %%
# Takeaway
# --------
# Trust a ratio with its interval, from candidates timed side by side, on the machine that you will use: the JSON behind
# each page can be set beside your own run with ``comparison.beside("published.json")``. The exception: a count is
# exact, but it is not a time. Small problems spend theirs on the overhead of calls, which FLOPs do not see.
