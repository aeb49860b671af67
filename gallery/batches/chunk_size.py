r"""
Which chunk size fits my memory?
================================

Suppose you compute a Hessian for each of 64 rows. All 64 at once are fast, but the intermediate results of all rows are
in memory at the same time. You can also split the batch into chunks, for example eight chunks of 8 rows, and compute
one chunk after the other. Then only the intermediate results of 8 rows are in memory. For chunks of :math:`c` rows, the
highest memory use (the peak) is

.. math::

    \text{peak} \approx R + c \cdot r.

Here :math:`R` is the memory of the result, and :math:`r` is what one row needs for its intermediate results. So you can
calculate the largest chunk size that fits. Suppose 800 bytes are free beside the result, and one row needs 100 bytes.
Then a chunk can have 800 / 100 = 8 rows. Smaller chunks are usually slower, because every chunk starts all operations
again. They can be faster if each chunk reuses the memory of the one before. And if a single row does not fit, chunks
cannot help: use ``torch.utils.checkpoint``, which computes intermediate results again instead of storing them.

**Answer:** Pass ``chunk_size="auto"`` and your memory limit in bytes as ``budget``: ``2**30`` is one GiB.
:func:`funcdiff.batch_hessian` then computes a Hessian for each row, in the largest chunks that stay within this limit.
First call ``requires_grad_(False)`` on the network, or PyTorch keeps the intermediate results of all chunks until the
end.

.. code-block:: python

    import torch
    from funcdiff import batch_hessian, jacobian

    network.requires_grad_(False)
    hessians = batch_hessian(network, chunk_size="auto", budget=2**30)(X)
    J = jacobian(f, chunk_size="auto", budget=2**30)(x)  # one large Jacobian, in parts
    of_rows = torch.func.vmap(torch.func.hessian(network))  # chunks in torch alone
    hessians = torch.cat([of_rows(part) for part in X.split(8)])
"""

# %%
# Use it
# ------
# We compute the Hessian of a network with 5 inputs and 25 outputs for each of 64 rows. The result has the shape (64,
# 25, 5, 5). The budget is ``2 * 2**20`` bytes.
#
# We also call ``requires_grad_(False)``. With this call we tell PyTorch that we never differentiate with respect to the
# parameters of the network. Otherwise PyTorch would keep the intermediate results of each chunk for a later
# ``backward()``. The results of all chunks would then be in memory together, and chunks would save almost nothing.

import torch

from funcdiff import batch_hessian
from funcdiff.measure import compare, count
from funcdiff.problems import study_network

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = study_network((5, 256, 256, 25)).requires_grad_(False).to(device)
B = 64
x = torch.randn(B, 5, device=device)

budget = 2 * 2**20
within = batch_hessian(network, chunk_size="auto", budget=budget)
whole = within(x)
print("Hessians:", tuple(whole.shape), f"{whole.nbytes:,} bytes")
print(f"peak: {count(within, x).peak_bytes:,} of {budget:,} bytes")

# %%
# A memory limit for a batch of Hessians
# --------------------------------------
# The peak is the most memory that the call uses at any moment. It does not contain the batch, the network and PyTorch
# itself, so the process uses more than the budget. On a GPU, ``torch.cuda.mem_get_info()[0]`` is the number of free
# bytes. Subtract what you need for other things.
#
# The first call with ``"auto"`` takes longer than later ones, because it also chooses a recipe, checks the result, and
# counts the memory of calls with a few chunks. This cell forgets the choice and times two calls:

import time

from funcdiff import clear_plans

clear_plans()
seconds = []
for _ in range(2):
    start = time.perf_counter()
    within(x)
    seconds.append(time.perf_counter() - start)
print(f"The first call takes {seconds[0] / seconds[1]:.2g}× as long as the second.")

# %%
# Check it by hand
# ----------------
# No row depends on another row. So we can split the batch ourselves, compute the Hessians of each part with torch, and
# join them. Then we pass a fixed ``chunk_size=16`` to the recipe. All results are equal.

from torch.func import hessian, vmap


def by_hand(x, rows):
    return torch.cat([vmap(hessian(network))(chunk) for chunk in x.split(rows)])


torch.testing.assert_close(by_hand(x, 16), whole)
torch.testing.assert_close(batch_hessian(network, chunk_size=16)(x), whole)

# %%
# Count
# -----
# Next we check that the peak grows along a straight line. We count it for several chunk sizes. For this we use the
# :term:`meta device`, where tensors have shapes but no numbers. Counting there computes nothing.

meta = study_network((5, 256, 256, 25)).requires_grad_(False).to("meta")
batch = torch.empty(B, 5, device="meta")


def peak(rows):
    return count(batch_hessian(meta, chunk_size=rows), batch).peak_bytes


per_row = (peak(32) - peak(16)) // 16
fixed = peak(32) - 32 * per_row
print(f"{per_row:,} bytes for each row of the chunk, and {fixed:,} fixed")
for rows in (4, 8, 16, 32):
    print(f"{rows:3} rows at once: {peak(rows):9,} bytes")

# %%
# For chunks of 8, 16 and 32 rows, the line is exact. Each further row adds the same number of bytes, and the fixed part
# is little more than the result. A chunk of 4 rows needs more than the line says: the first layer multiplies its
# weights by the tangents (directions, one for each input) once for all rows, and these products are larger than what 4
# rows need. All 64 rows at once need less than the line says, as their result does not have to be joined from parts.

assert peak(8) == fixed + 8 * per_row
assert peak(4) > fixed + 4 * per_row
assert peak(B) < fixed + B * per_row
assert whole.nbytes <= fixed < 1.1 * whole.nbytes

# %%
# We divide the budget without the fixed part by the bytes of one row. This gives the largest chunk. If
# smaller, equal chunks need the same number of calls, we use those. ``chunk_size="auto"`` finds the same
# size: it counts a call in which only a few chunks run.

most = (budget - fixed) // per_row
chosen = B // -(-B // most)
assert count(within, x).peak_bytes == peak(chosen) <= budget
print(f"at most {most} rows fit into {budget:,} bytes; in equal chunks: {chosen}")

# %%
# Time
# ----
# Small chunks save memory, but how much time do they cost? We time five chunk sizes. The last one is the whole batch.

chunks = [4, 8, 16, 32, B]
names = {rows: f"{rows} rows" for rows in chunks}
candidates = {names[rows]: batch_hessian(network, chunk_size=rows) for rows in chunks}
times = compare(candidates, x, rounds=8, costs=True)
times

# %%
# All sizes need nearly the same FLOPs. But each chunk starts every :term:`operation` again. Chunks of 4 rows do so 16
# times, and we expect this to cost time:

times.claim(names[B], faster_than=names[4])

# %%
# The figure shows what each chunk size costs in time and in memory.

from funcdiff.plots import plot_trade

slower = times.ratio(names[4], names[B]).median
smaller = times.costs[names[B]].peak_bytes / times.costs[names[4]].peak_bytes
title = f"4 rows at once: {smaller:.3g}× less memory, {slower:.3g}× more time than 64"
plot_trade(times, path=list(names.values()), title=title)

# %%
# From one point to the next, the chunk size halves. Which chunk is best for a budget? The fastest of those that fit:

fitting = [rows for rows in chunks if rows <= chosen]
best = min(fitting, key=lambda rows: times[names[rows]].median)
print(f"fastest of the chunks that fit into {budget:,} bytes: {best} rows")

# %%
# One large Jacobian
# ------------------
# The Jacobian at a single point can be computed in chunks, too. Our next function has 128 inputs and 128 outputs, so
# its Jacobian has 128 rows. On its path from input to output, the function fills a grid of 128 x 256 numbers. All rows
# at once need such a grid for each row. Chunks need it only for the rows of one chunk.

from funcdiff import explain, jacobian

n = 128


def detector(device):
    """128 detectors. Each one averages the signal of several sources over time."""
    mix = torch.ones(n, n, device=device).tril() / n
    moments = torch.linspace(0, 1, 256, device=device)

    def signal(x):
        phase = (mix @ x)[:, None] * moments
        return (phase.sin() * phase.cos()).mean(1)

    return signal, mix, moments


signal, mix, moments = detector("cpu")
v = torch.randn(n)
in_chunks = jacobian(signal, chunk_size="auto", budget=2**22)
explain(in_chunks, v)

# %%
# The first line of the table names the chosen recipe, the number of rows at once and the counted peak. The result
# agrees with the chain rule by hand.

phase = (mix @ v)[:, None] * moments
slope = (moments * torch.cos(2 * phase)).mean(1)
torch.testing.assert_close(in_chunks(v), slope[:, None] * mix)

# %%
# Now we compare it with the same Jacobian all at once, and one row at a time.

sizes = {
    "all at once": jacobian(signal),
    "auto": in_chunks,
    "one at a time": jacobian(signal, chunk_size=1),
}
large = compare(sizes, v, rounds=8, costs=True)
large

# %%
# The whole Jacobian at once needs more than ten times the budget. Chunks can also be faster. A small grid fits into
# memory that the previous chunk has just given back, while a large one needs fresh memory each time
# (:doc:`/tutorials/networks/allocator`). Does this happen here?

assert large.costs["auto"].peak_bytes <= 2**22
assert large.costs["all at once"].peak_bytes > 10 * 2**22
large.claim("auto", faster_than="all at once")

# %%
# One row at a time uses the least memory, but it starts the operations 128 times. This run shows whether that matters:

large.claim("auto", faster_than="one at a time")

# %%
# What goes wrong
# ---------------
# *The result alone exceeds the budget.* No chunk size can help then. You get an error before anything is computed, and
# the message names alternatives.

try:
    jacobian(signal, chunk_size="auto", budget=10**4)(v)
except MemoryError as error:
    print("MemoryError:", error)

# %%
# *The parameters require gradients.* Those of a new module do. PyTorch then records how each Hessian depends on the
# parameters, for a later ``backward()``. The record contains the intermediate results of the chunk. The records of all
# chunks are in memory until the last chunk is done.

trainable = study_network((5, 256, 256, 25)).to("meta")
candidates = {
    "frozen, 8 rows": batch_hessian(meta, chunk_size=8),
    "trainable, 8 rows": batch_hessian(trainable, chunk_size=8),
    "trainable, all rows": batch_hessian(trainable),
}
kept = count(candidates, batch)
kept

# %%
# Compare the peaks of the first two lines. Both compute 8 rows at a time. Only the frozen network saves memory.

kept.claim("frozen, 8 rows", smaller_peak_than="trainable, 8 rows", by=4)

# %%
# For trainable parameters, even the whole batch at once needs less than twice the memory of the chunks:

shrunk = kept["trainable, all rows"].peak_bytes / kept["trainable, 8 rows"].peak_bytes
assert shrunk < 2, "chunks no longer keep their graphs: update this section"

# %%
# There are three remedies. Call ``requires_grad_(False)`` on the module. Or use :func:`funcdiff.module_function`, which
# returns parameters that do not require gradients. Or compute under :class:`torch.no_grad`, as here.

with torch.no_grad():
    without = count(batch_hessian(trainable, chunk_size=8), batch)
assert without.peak_bytes == kept["frozen, 8 rows"].peak_bytes

# %%
# Takeaway
# --------
# Call ``requires_grad_(False)`` on the network, and pass ``chunk_size="auto"`` with your budget. If speed matters, also
# time a few smaller chunks, because the largest one is not always the fastest.
#
# * If the result alone exceeds the budget, compute products, a diagonal or a Laplacian instead.
# * If you call ``backward()`` through a Hessian, PyTorch needs the records of all chunks: make the batch smaller.
