r"""
Why do large results take longer than their arithmetic?
=======================================================

A large new tensor needs memory from the operating system. Linux hands it out in pages, usually of 4096 bytes. It does
so when the program first writes to a page, which is called a *page fault*. Each page fault takes time. A result of 16
million float32 numbers fills about 16 thousand pages, so it causes up to 16 thousand page faults.

Memory that the program already has causes none. So ``y = x + 1``, which makes a new tensor, can take longer than
``torch.add(x, 1, out=y)``, which computes the same numbers into an existing one. And if you compute a large derivative
in small pieces, each piece can reuse the memory of the one before, and the whole can be faster. This page is about the
memory of the CPU on Linux. On a GPU there are no page faults, because torch keeps freed GPU memory.

**Answer:** The operating system needs time to hand out the memory of the results, which shows as page faults. Use
methods with small intermediate results: ``batch_hessian(f)(X)`` chooses one here, and ``chunk_size`` makes the
intermediate results of any method smaller. If you cannot change the call, set two environment variables: the program
then keeps the memory that it frees, and other programs cannot use it.

.. code-block:: python

    import resource
    from funcdiff import batch_hessian

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    hessians = batch_hessian(f)(X)  # or in pieces, with chunk_size=250
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, "page faults")
    # in the shell: MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1099511627776 python x.py
"""

# %%
# Use it
# ------
# Linux counts the page faults of each process. We compute the Hessians of a network for 1400 rows in three ways. The
# first is all rows at once by forward over reverse, which is ``torch.func.hessian``. The second is the same in chunks
# of 250 rows. The third is ``batch_hessian``, which chooses a method (a :term:`recipe`).
#
# What a process computed before can leave free memory behind, and this would hide the page faults. So we start a new
# process for each method. It computes the Hessians whenever it receives a line, and answers with its page faults.

import os
import resource
import subprocess
import sys

import torch

CHILD = """
import resource, sys, torch
from funcdiff import batch_hessian, hessian_forward_over_reverse
from funcdiff.problems import study_network
torch.set_num_threads(1)
network = study_network((5, 50, 25)).requires_grad_(False)
batch = torch.randn(1400, 5)
method = {"hessian": hessian_forward_over_reverse}
hessian = {
    "at once": batch_hessian(network, **method),
    "in chunks": batch_hessian(network, chunk_size=250, **method),
    "batch_hessian": batch_hessian(network),
}[sys.argv[1]]
for line in sys.stdin:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    hessian(batch)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
"""

# %%
# ``start`` starts such a process, and returns a function that asks it for the Hessians once.

torch.set_num_threads(1)
children = []


def start(name, **variables):
    command = [sys.executable, "-W", "ignore", "-c", CHILD, name]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    children.append(child)

    def ask():
        print(file=child.stdin, flush=True)
        return int(child.stdout.readline())

    return ask


# %%
# We ask each process four times. The first call loads code and needs new memory in any case. We take the
# fewest page faults of the others.

methods = {name: start(name) for name in ("at once", "in chunks", "batch_hessian")}
counted = {name: min([ask() for _ in range(4)][1:]) for name, ask in methods.items()}
for name, number in counted.items():
    print(f"{name:14} {number:6} page faults")
more = counted["at once"] - counted["in chunks"]
if more < 1000:
    print("In this run, chunks save few page faults.")

# %%
# For each row and hidden unit, forward over reverse has intermediate results of 125 numbers, one for each entry of the
# Jacobian. In chunks these results are smaller, and a chunk can reuse the memory of the one before. Does this save
# time? We time the three processes in turn.

from funcdiff.measure import compare, count
from funcdiff.plots import plot

times = compare(methods, equal=False, rounds=11)
times

# %%
# We also count the FLOPs (floating-point operations) of each method, in this process:

from funcdiff import batch_hessian, hessian_forward_over_reverse
from funcdiff.problems import study_network

network = study_network((5, 50, 25)).requires_grad_(False)
method = {"hessian": hessian_forward_over_reverse}
hessians = {
    "at once": batch_hessian(network, **method),
    "in chunks": batch_hessian(network, chunk_size=250, **method),
    "batch_hessian": batch_hessian(network),
}
costs = count(hessians, torch.randn(1400, 5))
costs

# %%
# "At once" and "in chunks" need almost the same FLOPs, so arithmetic does not explain a difference in time. We expect
# chunks to be faster if they cause far fewer page faults. Otherwise they only start all operations more often, and we
# expect them to be slower.

fast, slow = ("in chunks", "at once") if more > 1000 else ("at once", "in chunks")
expected = times.claim(fast, faster_than=slow)
expected

# %%
# ``batch_hessian`` needs fewer FLOPs and far less memory, so we expect it to be the fastest:

times.claim("batch_hessian", faster_than="at once")

# %%
# The figure shows the three times.

plot(times, title=expected.finding)

# %%
# Compare the lines of "at once" and "in chunks". Two things separate them. At once, page faults can take time. In
# chunks, the operations start six times as often.
#
# Check it by hand
# ----------------
# The smallest example adds 1 to a large tensor. We write the result first into a new tensor, then into one that we
# keep. The results are equal. We count the page faults, and compare them with the pages of the result.


def faults(call, *args):
    """The fewest page faults of three calls, because other threads only add some."""
    counted = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        call(*args)
        counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counted)


x = torch.randn(16, 1024, 1024)
kept = torch.empty_like(x)


def fresh(x):
    return x + 1


def into_kept(x):
    return torch.add(x, 1, out=kept)


torch.testing.assert_close(into_kept(x), fresh(x))
pages = x.nbytes // resource.getpagesize()
print(f"pages of the result: {pages}")
new, old = faults(fresh, x), faults(into_kept, x)
print(f"fresh {new} page faults, into kept {old}")
if new > pages / 1000:
    print(f"The new tensor caused a page fault for {new / pages:.0%} of its pages.")
else:
    print("In this run the program reused memory that it had freed,")
    print("so a new tensor caused few or no page faults.")
assert old < pages / 10

# %%
# If nearly every page was new, the share of pages is near 100 %. It is much smaller if the system hands out larger
# pages, or if the program reused memory that it had freed. Next we time both additions.

additions = compare({"fresh": fresh, "into kept": into_kept}, x, rounds=11)
additions

# %%
# If the new tensor causes page faults, we expect the kept one to be faster:

additions.claim("into kept", faster_than="fresh")

# %%
# The arithmetic is the same. So the difference in time, divided by the number of page faults, is the time of one fault.

saved = additions["fresh"].median - additions["into kept"].median
if new > pages / 2 and saved > 0:
    print(f"{saved / new * 1e9:,.0f} nanoseconds for each page fault")
else:
    print("This run does not show how long a page fault takes.")

# %%
# Keep freed memory
# -----------------
# Why does a program not keep its memory? The C library (glibc) gives each result above a threshold back to the system.
# Two environment variables change this. They must be set before Python starts. So we start one more process, with the
# variables, and compare it with the first one.

default = methods["at once"]
keeping = start(
    "at once",
    MALLOC_MMAP_MAX_="0",
    MALLOC_TRIM_THRESHOLD_=str(2**40),
)
print("page faults, default:", [default() for _ in range(3)])
print("page faults, keeping:", [keeping() for _ in range(3)])

# %%
# The process that keeps what it frees needs new memory in its first calls. In most later calls, it should have far
# fewer page faults than the other one. We time both processes in turn.

policies = compare({"default": default, "keeping": keeping}, equal=False, rounds=8)
policies

# %%
# Both processes do the same arithmetic, so we expect the one with fewer page faults to be faster:

policies.claim("keeping", faster_than="default")

# %%
# What goes wrong
# ---------------
# *You write two results into the same memory.* The second call overwrites the first result. (We also end the
# processes.)

for child in children:
    child.communicate()

one = into_kept(x)
two = torch.add(x, 2, out=kept)
assert one.data_ptr() == two.data_ptr(), "out= now copies: update this section"
print("The first result, x + 1, has become x +", (one - x).mean().round().item())

# %%
# *You use* ``out=`` *with autograd.* It raises an error, because autograd may still need the numbers that are
# overwritten.

try:
    torch.add(x[0].clone().requires_grad_(), 1, out=kept[0])
except RuntimeError as error:
    print("RuntimeError:", error)
else:
    raise AssertionError("torch now differentiates out=: update this section")

# %%
# Takeaway
# --------
# If a call takes longer than its FLOPs predict, count its page faults. First use ``batch_hessian(f)``, then try
# ``chunk_size``: smaller intermediate results need less memory and reuse what was freed.
#
# * If you cannot change the call, set the two environment variables.
# * If you compute on a GPU, there are no page faults: torch keeps freed GPU memory. Chunks then save only memory.
