r"""
Which chunk size fits my memory?
================================

The derivatives of a batch, taken all at once, hold the intermediate results of all rows at once, and those may be a
hundred times larger than the answer. Taken a few rows at a time they fit, for the price of starting each operation
more often.

**Answer:** count the peak at two chunk sizes, draw the line through them, and take the largest chunk under your
budget. If parameters require grad, detach them first: otherwise no chunk size helps.
"""

# %%
# The function
# ------------
# A network with 5 inputs and 25 outputs on 64 rows, and the Hessian of each row, by forward mode over forward mode
# since a row has few inputs. We differentiate by the input, and freeze the parameters; the last section tells why.

import torch
from torch.func import vmap

from funcdiff import batch_hessian, hessian_forward_over_forward
from funcdiff.problems import study_network

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = study_network((5, 256, 256, 25)).requires_grad_(False).to(device)
B = 64
x = torch.randn(B, 5, device=device)

# %%
# By hand
# -------
# A chunk of rows is a slice of the batch. The rows do not know of each other, so nothing else changes.

of_row = hessian_forward_over_forward(network)


def by_hand(x, chunk):
    return torch.cat([vmap(of_row)(rows) for rows in x.split(chunk)])


whole = vmap(of_row)(x)
torch.testing.assert_close(by_hand(x, 16), whole)

# %%
# The recipe
# ----------
# ``chunk_size`` is an option of every Jacobian and Hessian; in those of a batch it is the number of rows at once.


def in_chunks(chunk, network=network):
    return batch_hessian(network, chunk_size=chunk, hessian=hessian_forward_over_forward)


torch.testing.assert_close(in_chunks(16)(x), whole)
print(tuple(whole.shape), f"{whole.nbytes:,} bytes")

# %%
# Prediction
# ----------
# The peak is the answer, which stays, and what each row of the chunk needs: a straight line,
# :math:`p(c) = p_0 + c\, p_1`, which two counts give. They are taken on the *meta* device, which knows shapes and no
# numbers: nothing is computed. The floor is twice the answer, while its chunks are joined.

from funcdiff.measure import compare, count

meta = study_network((5, 256, 256, 25)).requires_grad_(False).to("meta")
rows = torch.empty(B, 5, device="meta")


def peak(chunk):
    return count(in_chunks(chunk, meta), rows).peak_bytes


slope = (peak(B) - peak(B // 2)) // (B // 2)
fixed = peak(B) - B * slope
print(f"{slope:,} bytes for each row of the chunk, {fixed:,} fixed; the answer is {whole.nbytes:,}")

# %%
# The line is no estimate: line and floor hold at every other chunk size.

for chunk in (2, 8, 16):
    predicted = max(fixed + chunk * slope, 2 * whole.nbytes)
    assert abs(peak(chunk) - predicted) < 0.01 * predicted

# %%
# The largest chunk for a budget is then one division. On a GPU the budget is ``torch.cuda.mem_get_info()[0]``, less
# what you need besides.


def largest_chunk(budget):
    return min(max((budget - fixed) // slope, 1), B)


budget = 3 * 2**20
chosen = largest_chunk(budget)
assert peak(chosen) <= budget < peak(2 * chosen)
print(f"{chosen} rows at once for {budget:,} bytes")

# %%
# Measurement
# -----------
# A small chunk starts every operation for few rows. A large one works on arrays that leave the processor's caches,
# and asks the system for fresh memory. Which weighs more is for the clock to say.

chunks = [4, 8, 16, 32, B]
names = {chunk: f"{chunk} rows" for chunk in chunks}
times = compare({names[chunk]: in_chunks(chunk) for chunk in chunks}, x, rounds=8, costs=True)
times

# %%
times.claim(names[B], faster_than=names[4])

# %%
# All of the batch at once, against a quarter of it:

times.claim(names[B], faster_than=names[16])

# %%
# The trade: each step to the left halves the chunk.

from funcdiff.plots import plot_trade

plot_trade(times, path=list(names.values()), title="The chunk trades memory for time")

# %%
# The best chunk for a budget is the fastest of those that fit:

fitting = {chunk: times[names[chunk]].median for chunk in chunks if chunk <= chosen}
best = min(fitting, key=fitting.get)
print(f"fastest of the chunks that fit {budget:,} bytes: {best} rows")

# %%
# One large Jacobian
# ------------------
# Without a batch, ``chunk_size`` is the number of rows of the matrix (reverse mode) or of its columns (forward mode)
# at once. The answer itself, 2048 by 2048 numbers, is no smaller for it; while the chunks are joined it is held twice.

from funcdiff import jacobian_reverse


def gelu(x):
    return torch.nn.functional.gelu(x.sin().tanh())


vector = torch.empty(2048, device="meta")
knobs = {f"{rows} rows at once": jacobian_reverse(gelu, chunk_size=rows) for rows in (64, 256, 2048)}
costs = count(knobs, vector)
costs

# %%
answer = 4 * 2048**2
assert costs["64 rows at once"].peak_bytes >= 2 * answer
costs.claim("64 rows at once", smaller_peak_than="2048 rows at once")

# %%
# What breaks
# -----------
# If the parameters require grad, as those of a fresh module do, the Hessian remembers how it came about, and so do
# the chunks that are done. Their graphs stay until the last chunk, and chunking saves next to nothing.

trainable = study_network((5, 256, 256, 25)).to("meta")
candidates = {
    "frozen, 8 rows": in_chunks(8, meta),
    "trainable, 8 rows": in_chunks(8, trainable),
    "trainable, all rows": in_chunks(None, trainable),
}
kept = count(candidates, rows)
kept

# %%
kept.claim("frozen, 8 rows", smaller_peak_than="trainable, 8 rows", by=4)

# %%
shrunk = kept["trainable, all rows"].peak_bytes / kept["trainable, 8 rows"].peak_bytes
assert shrunk < 2, "chunks no longer keep their graphs: update this section"

# %%
# Three ways to the same end: ``requires_grad_(False)`` on the module, :func:`funcdiff.module_function`, which hands
# the parameters out detached, and :class:`torch.no_grad` around the call.

with torch.no_grad():
    without = count(in_chunks(8, trainable), rows)
assert without.peak_bytes == kept["frozen, 8 rows"].peak_bytes

# %%
# Takeaway
# --------
# Peak memory is a straight line in the chunk, so two counts choose it; measure among the chunks that fit, and
# expect little from the largest over the next. The exceptions: no chunk brings the peak below twice the answer; and
# who trains through a Hessian needs the graph of all its chunks, and has to make the batch itself smaller.
