r"""
Which chunk size fits my memory?
================================

The derivatives of a batch, taken all at once, hold the intermediate results of all rows at once, and those may be a
hundred times larger than the answer. Taken a few rows at a time they fit, for the price of starting each operation
more often.

**Answer:** say what you have, ``chunk_size="auto", budget=2**30``, and the largest chunk that fits is counted for you:
the peak is a straight line in the chunk. If parameters require grad, detach them first: otherwise no chunk size helps.
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
# numbers: nothing is computed. No chunk goes below the answer, into which each chunk is written as it is done.

from funcdiff.measure import compare, count

meta = study_network((5, 256, 256, 25)).requires_grad_(False).to("meta")
rows = torch.empty(B, 5, device="meta")


def peak(chunk):
    return count(in_chunks(chunk, meta), rows).peak_bytes


slope = (peak(B // 2) - peak(B // 4)) // (B // 4)
fixed = peak(B // 2) - B // 2 * slope
print(f"{slope:,} bytes for each row of the chunk, {fixed:,} fixed; the answer is {whole.nbytes:,}")

# %%
# The line is no estimate: it holds at every other chunk size.

for chunk in (1, 2, 8):
    assert peak(chunk) == fixed + chunk * slope
assert whole.nbytes <= fixed < 1.1 * whole.nbytes

# %%
# The largest chunk for a budget is then one division, rounded down to one that makes all chunks alike. The recipe does
# this by itself: it counts calls in which only a few chunks are run. On a GPU the budget is
# ``torch.cuda.mem_get_info()[0]``, less what you need besides.

budget = 3 * 2**20
chosen = B // -(-B // ((budget - fixed) // slope))
automatic = batch_hessian(network, chunk_size="auto", budget=budget, hessian=hessian_forward_over_forward)
torch.testing.assert_close(automatic(x), whole)
assert count(automatic, x).peak_bytes == peak(chosen) <= budget < peak(2 * chosen)
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
# at once. A detector sums what each of 256 sources sends over a fine grid of times; between its small input and its
# small output stands a grid of half a million numbers, for every column.

from funcdiff import explain, jacobian

sources = 256


def detector(device):
    mix = torch.ones(sources, sources, device=device).tril() / sources
    times = torch.linspace(0, 1, 2000, device=device)

    def signal(x):
        phase = (mix @ x)[:, None] * times
        return (phase.sin() * phase.cos()).mean(1)

    return signal, mix, times


signal, mix, times = detector("cpu")
v = torch.randn(sources)
slope = jacobian(signal, chunk_size="auto", budget=2**27)
explain(slope, v)

# %%
# The slope by hand, the chain rule of one line, agrees; the count says what the same recipe takes all at once.

by_hand = torch.cos(2 * (mix @ v)[:, None] * times).mul(times).mean(1)[:, None] * mix
torch.testing.assert_close(slope(v), by_hand)

import funcdiff

recipe = getattr(funcdiff, explain(slope, v).recipe)
at_once = count(recipe(detector("meta")[0]), torch.empty(sources, device="meta"))
kept = count(slope, v)
print(f"{at_once.peak_bytes / 2**30:.2f} GiB at once, {kept.peak_bytes / 2**30:.3f} GiB in chunks")
assert kept.peak_bytes <= 2**27 < at_once.peak_bytes / 5

# %%
# What cannot fit is refused before anything is computed: the answer alone has a quarter of a million bytes.

try:
    jacobian(signal, chunk_size="auto", budget=10**5)(v)
except MemoryError as error:
    print(error)

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
# Peak memory is a straight line in the chunk, so a few counts choose it; for the fastest, measure among those that fit.
# The exceptions: no chunk brings the peak below the answer; and who trains through a Hessian needs the graph of all its
# chunks, and has to make the batch itself smaller.
