"""
How do we measure, and what goes wrong otherwise?
=================================================

Suppose one function takes twice as long as another. Then other programs start on the machine, and everything takes
three times as long. If you time the shorter function before and the longer one after, the longer one seems to take six
times as long. But at every moment it takes twice as long.

So time both functions in turn, many times. Each turn gives a ratio of the two times, and a slow moment hardly changes
it. Report the median of these ratios, with an interval that says how far you can trust it.

**Answer:** Use ``compare``, which does this. State a result with ``claim``, which says no more than the interval
allows, or that a method was timed only once. If a cost can be counted, use ``count``: counts have no noise.

.. code-block:: python

    from statistics import median
    from timeit import timeit
    from funcdiff.measure import compare, count

    times = compare({"mine": mine, "theirs": theirs}, x)  # shows itself as a table
    times.claim("mine", faster_than="theirs")  # prints what was measured
    # The idea by hand, for two functions without arguments:
    median(timeit(theirs, number=9) / timeit(mine, number=9) for _ in range(25))
"""

# %%
# Use it
# ------
# We compare two functions of torch that return the same Jacobian, of a layer with 16 inputs and 16 outputs. ``jacrev``
# computes its rows, and ``jacfwd`` its columns.

import torch
from torch.func import jacfwd, jacrev

from funcdiff.measure import compare

torch.manual_seed(0)
weight, bias, x = torch.randn(16, 16), torch.randn(16), torch.randn(16)


def predict(x):
    return torch.tanh(torch.nn.functional.linear(x, weight, bias))


reverse, forward = jacrev(predict), jacfwd(predict)
comparison = compare({"reverse": reverse, "forward": forward}, x, costs=True)
comparison

# %%
# The fastest candidate comes first. These are the columns:
#
# * *median* is the time of one call: half of all samples are shorter. *IQR*, the interquartile range, says how far the
#   samples scatter: the middle half of them are in a range of this width.
# * *ratio to fastest* says how many times as long a candidate takes as the first one. Each :term:`round`, that is each
#   turn, gives such a ratio, and the column shows their median. The *99% interval* contains the true median ratio with
#   a probability of 99%.
# * *n* is the number of samples. The *first call* is timed apart.
# * *matrix FLOPs* are the floating-point operations of matrix products. *operations* is the number of calls that write
#   to memory, *written* the bytes that they write, and *peak* the most memory in use. These columns are counted, not
#   timed.
#
# ``claim`` makes a sentence from the measurement:

comparison.claim("reverse", faster_than="forward")

# %%
# If the interval contains 1, ``claim`` says that this run shows no difference. If the measurement contradicts what you
# expected, it says so. We try this with a wrong expectation:

comparison.claim("forward", faster_than="reverse", by=2)

# %%
# ``plot`` draws the medians as points and the quartiles as bars.

from funcdiff.plots import plot

name, other = comparison.fastest, max(comparison, key=lambda n: comparison[n].median)
ratio = comparison.ratio(other, name)
title = f"For 16 inputs, {name} is {ratio.median:.3g}× faster than {other}"
plot(comparison, title=title)

# %%
# If the bars do not overlap, the difference is larger than the spread of single samples.

# %%
# What ``compare`` does
# ---------------------
# * It first checks that the results of all candidates agree.
# * It keeps the first call apart, because it may load or compile something.
# * It times all candidates once in each :term:`round`, in random order, so that a slow phase of the machine affects
#   all of them alike.
# * A short call is repeated until the timer can resolve it, after one untimed call that warms the caches.
# * Garbage collection is off, and an accelerator has finished its work before the time is read.

# %%
# The interval uses only the order of the samples. With 12 rounds or more, a single outlier cannot move it far. With 8
# or 9 rounds it reaches from the smallest ratio to the largest, so an outlier widens it.

# %%
# Count instead
# -------------
# A count has no noise. ``count`` returns the FLOPs (floating-point operations) of matrix products, the number of
# operations, and the peak of memory of one call. It can count on the :term:`meta device`, where nothing is computed. So
# you can even count calls that would never fit in memory.

from funcdiff.measure import count

layers = torch.nn.Linear(5, 1000), torch.nn.ELU(), torch.nn.Linear(1000, 25)
net = torch.nn.Sequential(*layers).to("meta")
point = torch.empty(5, device="meta")
costs = count(
    {
        "forward over reverse": jacfwd(jacrev(net)),
        "reverse over reverse": jacrev(jacrev(net)),
    },
    point,
)
costs

# %%
# The table lists the counts of one call. A claim about counts is exact, and a false one raises an error:

costs.claim("forward over reverse", fewer_flops_than="reverse over reverse", by=2)

# %%
# What goes wrong
# ---------------
# Four habits lead to wrong numbers. We try each of them.
#
# *You include the first call.* It may have to load, trace or compile something, and no later call repeats this. These
# are the first calls of the comparison above:

for name, timing in comparison.items():
    factor = timing.first / timing.median
    print(f"{name}: the first call took {factor:,.1f} times the median of the others")

# %%
# *You take one sample.* ``timeit(500)`` of torch's benchmark timer measures 500 calls together, and this is one sample.
# Its interquartile range is zero, because one number has no spread. It does not mean that the machine was quiet.
# ``blocked_autorange`` takes many samples.

from torch.utils.benchmark import Timer

timer = Timer("f(x)", globals={"f": reverse, "x": x})
one, many = timer.timeit(500), timer.blocked_autorange(min_run_time=0.2)
for name, sample in {"timeit(500)": one, "blocked_autorange": many}.items():
    spread = sample.iqr / sample.median
    print(f"{name:18} n = {len(sample.times)}, IQR / median = {spread:.3f}")
assert one.iqr == 0

# %%
# *You time one candidate after the other.* Here both candidates are the same function, so the true ratio is 1. Before
# the second one is timed, other programs start: one for each core, which computes without a pause.


import subprocess
import sys
import time
from timeit import timeit

from funcdiff.measure import environment


def seconds(func, calls):
    return timeit(lambda: func(x), number=calls) / calls


class OtherPrograms:
    def __enter__(self):
        busy = [sys.executable, "-c", "while True: pass"]
        self.running = [subprocess.Popen(busy) for _ in range(environment().cores)]
        time.sleep(0.3)  # until they compute

    def __exit__(self, *error):
        for process in self.running:
            process.kill()
            process.wait()


alone = seconds(reverse, calls=500)
with OtherPrograms():
    crowded = seconds(reverse, calls=500)
print(f"the same function, timed second: {crowded / alone:.2f} times as long")

# %%
# ``compare`` times both in turn, so the other programs slow down both. Its samples are short, so most of them are not
# interrupted, and the median ignores the others.

same = {"reverse": reverse, "reverse again": lambda x: reverse(x)}
with OtherPrograms():
    crowded_comparison = compare(same, x)
crowded_comparison.claim("reverse", faster_than="reverse again")

# %%
# *You use more threads than there are free cores.* Two threads share the work of a large product, and the first to
# finish waits for the other. If another program interrupts one of them, both take longer. How much longer does the
# product take, and how far do its times scatter, if other programs occupy all cores?

a = torch.randn(512, 512)
for threads in (1, 2):
    alone = compare({"product": torch.mm}, a, a, threads=threads)["product"]
    with OtherPrograms():
        crowded = compare({"product": torch.mm}, a, a, threads=threads)["product"]
    longer, spread = crowded.median / alone.median, crowded.iqr / crowded.median
    print(f"{threads} thread(s): {longer:.2f} times as long, IQR / median {spread:.2f}")

# %%
# These numbers change with each run, and with what the other programs do. A single thread never has to wait for another
# one, which is a reason to measure with one thread. We do so, unless threads are the subject. Every table says how many
# threads it used.
#
# Takeaway
# --------
# Time candidates in turn, on the machine that you will use, and report the ratio with its interval. Every page links
# its measurements as JSON, and ``comparison.beside("published.json")`` puts your own run next to them.
#
# * If large matrix products take most of the time, a count of FLOPs is enough: it is exact, and times follow it.
# * If you compare small problems, measure: most of their time is overhead, which FLOPs do not include.
