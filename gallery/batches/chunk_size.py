r"""
Which chunk size fits my memory?
================================

The derivatives of a whole batch at once need memory for the intermediate results of all rows together. In chunks of
:math:`c` rows they need it for :math:`c` rows at a time. The peak of memory is a straight line in :math:`c`:

.. math::

    \text{peak} \approx \text{result} + c \cdot \text{memory of one row}.

So the largest chunk that fits follows from one division. Suppose the budget leaves 800 bytes beside the result, and one
row needs 100. Then chunks of 8 rows fit. Do not make chunks smaller than necessary: every chunk starts all operations
again.

**Answer:** The largest chunk whose peak stays below your budget. Pass the budget in bytes, and the recipe counts the
peak and chooses: ``batch_hessian(f, chunk_size="auto", budget=2**30)(X)``. Freeze the parameters of your network
first: otherwise PyTorch keeps the intermediate results of every chunk, to differentiate with respect to the parameters
later, and chunks save almost nothing.

.. code-block:: python

    network.requires_grad_(False)
    hessians = batch_hessian(network, chunk_size="auto", budget=2**30)(X)  # B rows
    slope = jacobian(f, chunk_size="auto", budget=2**30)(x)  # one large Jacobian
"""

# %%
# Use it
# ------
# We compute the Hessian of a network with 5 inputs and 25 outputs for each of 64 rows. The result has the shape (64,
# 25, 5, 5). The budget is ``2 * 2**20`` bytes. We freeze the parameters, because we differentiate with respect to the
# input only.

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
# The peak is the most memory that the call uses at any moment. On a GPU, ``torch.cuda.mem_get_info()[0]`` says how
# many bytes are free; subtract what you need for other things.
#
# Check it by hand
# ----------------
# A chunk is a slice of the batch, and the rows are independent. We compute the Hessians chunk by chunk with torch's own
# Hessian, and then pass a chunk size to the recipe ourselves. All results are equal.

from torch.func import hessian, vmap


def by_hand(x, rows):
    return torch.cat([vmap(hessian(network))(chunk) for chunk in x.split(rows)])


torch.testing.assert_close(by_hand(x, 16), whole)
torch.testing.assert_close(batch_hessian(network, chunk_size=16)(x), whole)

# %%
# Count
# -----
# The peak of one call is the result plus what each row of the chunk needs. We count it for several chunk sizes. On the
# :term:`meta device`, tensors have shapes but no numbers, so counting computes nothing.

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
# The peak is a straight line in the number of rows at once, and the fixed part is little more than the result. Very
# small chunks lie above the line. There the products of the weights with the tangents, which all rows share, need more
# memory than the rows.

assert peak(8) == fixed + 8 * per_row
assert peak(4) > fixed + 4 * per_row
assert whole.nbytes <= fixed < 1.1 * whole.nbytes

# %%
# The largest chunk for a budget follows from one division. We round it down so that all chunks have the same size.
# ``chunk_size="auto"`` does the same: it counts a call in which only a few chunks run.

most = (budget - fixed) // per_row
chosen = B // -(-B // most)
assert count(within, x).peak_bytes == peak(chosen) <= budget
print(f"at most {most} rows fit into {budget:,} bytes; in equal chunks: {chosen}")

# %%
# Time
# ----
# Small chunks save memory. What do they cost in time? We time five chunk sizes. The last one is the whole batch at
# once.

chunks = [4, 8, 16, 32, B]
names = {rows: f"{rows} rows" for rows in chunks}
candidates = {names[rows]: batch_hessian(network, chunk_size=rows) for rows in chunks}
times = compare(candidates, x, rounds=8, costs=True)
times

# %%
# All sizes need nearly the same FLOPs. But a small chunk starts every :term:`operation` for few rows, and we expect
# this overhead to cost time:

times.claim(names[B], faster_than=names[4])

# %%
# The figure shows what each chunk size costs in time and in memory.

from funcdiff.plots import plot_trade

slower = times.ratio(names[4], names[B]).median
smaller = times.costs[names[B]].peak_bytes / times.costs[names[4]].peak_bytes
title = f"4 rows at once: {smaller:.3g}× less memory, {slower:.3g}× more time than 64"
plot_trade(times, path=list(names.values()), title=title)

# %%
# Each step to the left halves the chunk. The best chunk for a budget is the fastest of those that fit:

fitting = [rows for rows in chunks if rows <= chosen]
best = min(fitting, key=lambda rows: times[names[rows]].median)
print(f"fastest of the chunks that fit into {budget:,} bytes: {best} rows")

# %%
# One large Jacobian
# ------------------
# A Jacobian of one point can be computed in chunks, too: some rows at a time in reverse mode, or some columns at a time
# in forward mode. Our function has 128 inputs and 128 outputs. In between it evaluates a grid of 32 768 numbers, and
# the Jacobian repeats this grid for every row.

from funcdiff import explain, jacobian

n = 128


def detector(device):
    """128 detectors; each averages the signal of a sum of sources over time."""
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
# The first line of the table is the chosen recipe, with the number of rows at once and the counted peak. The result
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
# The whole Jacobian at once exceeds the budget by far. Chunks can even save time, because small intermediate results
# reuse the same memory, while large ones need fresh memory each time (:doc:`/tutorials/networks/allocator`). This is
# what happens here:

assert large.costs["auto"].peak_bytes <= 2**22
assert large.costs["all at once"].peak_bytes > 5 * 2**22
large.claim("auto", faster_than="all at once")

# %%
# One row at a time uses the least memory. This run shows whether its overhead matters:

large.claim("auto", faster_than="one at a time")

# %%
# What goes wrong
# ---------------
# *The answer alone does not fit.* This is an error before anything is computed, and the message names alternatives.

try:
    jacobian(signal, chunk_size="auto", budget=10**4)(v)
except MemoryError as error:
    print("MemoryError:", error)

# %%
# *The parameters require gradients*, as those of a new module do. The Hessians then keep the graph of how they were
# computed, and the graphs of all chunks stay in memory until the last chunk is done.

trainable = study_network((5, 256, 256, 25)).to("meta")
candidates = {
    "frozen, 8 rows": batch_hessian(meta, chunk_size=8),
    "trainable, 8 rows": batch_hessian(trainable, chunk_size=8),
    "trainable, all rows": batch_hessian(trainable),
}
kept = count(candidates, batch)
kept

# %%
# Compare the peaks: with frozen parameters chunks of 8 rows save memory, with trainable parameters they hardly do.

kept.claim("frozen, 8 rows", smaller_peak_than="trainable, 8 rows", by=4)

# %%
# For trainable parameters, the whole batch at once has a peak less than twice that of the chunks:

shrunk = kept["trainable, all rows"].peak_bytes / kept["trainable, 8 rows"].peak_bytes
assert shrunk < 2, "chunks no longer keep their graphs: update this section"

# %%
# There are three remedies: call ``requires_grad_(False)`` on the module, use :func:`funcdiff.module_function`, which
# returns detached parameters, or put the call under :class:`torch.no_grad`, as here.

with torch.no_grad():
    without = count(batch_hessian(trainable, chunk_size=8), batch)
assert without.peak_bytes == kept["frozen, 8 rows"].peak_bytes

# %%
# Takeaway
# --------
# Freeze the parameters and pass ``chunk_size="auto"`` with your budget. If speed matters, also time a few chunk sizes
# that fit, because the largest one is not always the fastest.
#
# * If the answer alone exceeds the budget, no chunk size helps: compute products, a diagonal or a Laplacian instead.
# * If you train through a Hessian, you need the graphs of all chunks: make the batch smaller.
