r"""
Why do large results take longer than their arithmetic?
=======================================================

A tensor of many megabytes is fresh memory, which the system hands out page by page, each at its first touch. A
Hessian with large intermediate results pays for that at every call, and no count of FLOPs shows it.

**Answer:** page faults. Keep results small with ``chunk_size``; where they must be large, write into memory that you
keep, or tell glibc to keep freed memory: ``MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=...`` before Python starts.
"""

# %%
# What a fresh result costs
# -------------------------
# Linux counts the pages that a process touched for the first time: *minor faults*. A page is usually 4096 bytes, so
# each fresh float32 result should fault once in 1024 entries. All of this is about memory of the CPU on Linux.

import resource

import torch

torch.manual_seed(0)
torch.set_num_threads(1)


def faults(call, *args):
    """Minor faults of a call, the least of three: other threads can only add to them."""
    counted = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        call(*args)
        counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counted)


# %%
# By hand
# -------
# Adding 1 to a large tensor, into a fresh result and into one that we keep. The results are equal.

x = torch.randn(16, 1024, 1024)
kept = torch.empty_like(x)


def fresh(x):
    return x + 1


def into_kept(x):
    return torch.add(x, 1, out=kept)


torch.testing.assert_close(into_kept(x), fresh(x))

# %%
# Prediction
# ----------
# Both compute and write the same; they differ in who touched the memory before. Memory that was never touched costs
# a fault a page:

pages = x.nbytes // resource.getpagesize()
print(f"pages of the result: {pages}")
for name, way in {"fresh": fresh, "into kept": into_kept}.items():
    print(f"{name:10} {faults(way, x):6} faults")

# %%
# Measurement
# -----------

from funcdiff.measure import compare
from funcdiff.plots import plot

times = compare({"fresh": fresh, "into kept": into_kept}, x, rounds=15)
times

# %%
times.claim("into kept", faster_than="fresh")

# %%
plot(times, title="A fresh result pays for its pages, a kept one does not")

# %%
# The recipe: a Hessian in chunks
# -------------------------------
# The Hessian of a network 5 -> 50 -> 25, forward over reverse, over 1400 rows makes intermediate results of 125
# numbers a unit and row, and no ``out=`` reaches them. ``chunk_size`` makes them smaller: memory that one chunk
# freed, and that is not too large for glibc to keep, serves the next.

from functools import partial

from funcdiff import batch_hessian, hessian_forward_over_reverse
from funcdiff.problems import study_network

hessian_of_rows = partial(batch_hessian, hessian=hessian_forward_over_reverse)
network = study_network((5, 50, 25)).requires_grad_(False)
batch = torch.randn(1400, 5)
at_once, in_chunks = hessian_of_rows(network), hessian_of_rows(network, chunk_size=250)
torch.testing.assert_close(in_chunks(batch), at_once(batch), rtol=1e-3, atol=1e-5)

for name, hessian in {"at once": at_once, "in chunks": in_chunks}.items():
    print(f"{name:10} {faults(hessian, batch):6} faults")

# %%
chunks = compare({"at once": at_once, "in chunks": in_chunks}, batch, rounds=8, costs=True)
chunks

# %%
chunks.claim("in chunks", faster_than="at once")

# %%
# Another allocator policy
# ------------------------
# glibc gives every result above its largest threshold, 32 mebibytes, back to the system at once. Two environment
# variables make it keep them. They must be set before Python starts, so we start two processes: each waits for a line,
# takes the same Hessian, and answers with its faults.

import os
import subprocess
import sys

CHILD = """
import resource, sys, torch
from funcdiff import batch_hessian, hessian_forward_over_reverse
from funcdiff.problems import study_network
torch.set_num_threads(1)
network, batch = study_network((5, 50, 25)).requires_grad_(False), torch.randn(1400, 5)
hessian = batch_hessian(network, hessian=hessian_forward_over_reverse)
for line in sys.stdin:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    hessian(batch)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
"""


def process(**variables):
    """A function that has a process of its own take the Hessian, and returns the faults."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
    )

    def take():
        print(file=child.stdin, flush=True)
        return int(child.stdout.readline())

    return take, child


# %%
# As before, the two take turns, and ratios are of the same round.

default, default_child = process()
keeping, keeping_child = process(MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_=str(2**40))
print("faults:", {"default": [default() for _ in range(3)], "keeping": [keeping() for _ in range(3)]})
policies = compare({"default": default, "keeping": keeping}, equal=False, rounds=8)
policies

# %%
policies.claim("keeping", faster_than="default")

# %%
for child in (default_child, keeping_child):
    child.communicate()

# %%
# What breaks
# -----------
# A result in memory that we keep is overwritten by the next call: what looks like two results is one.

one = into_kept(x)
two = torch.add(x, 2, out=kept)
assert one.data_ptr() == two.data_ptr(), "torch now copies results of out=: update this section, What breaks"
print("the first result, which was x + 1, is now x +", (one - x).mean().round().item())

# %%
# And autograd refuses ``out=``, since it cannot tell when the memory is overwritten:

try:
    torch.add(x[0].clone().requires_grad_(), 1, out=kept[0])
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("torch now differentiates functions with out=: update this section, What breaks")

# %%
# Takeaway
# --------
# Where a call's time exceeds what its FLOPs predict, look at its faults. Chunks cure them without a change elsewhere,
# and lower the peak too. The exception is a GPU, and any system with an allocator that keeps what it has: torch's own
# on CUDA does, and there chunks serve memory alone.
