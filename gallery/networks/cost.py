r"""
What do the derivatives of my network cost?
===========================================

Surrogate networks have few inputs, and many people differentiate them twice, row by row, in a batch. The same Hessian
can be written in ways that differ by two orders of magnitude in time and in memory.

**Answer:** count the FLOPs of each way, without running it, and take the least: the clock follows the count. With few
inputs, :func:`funcdiff.jacobian_forward` and :func:`funcdiff.hessian_taylor`, or forward over forward.
"""

# %%
# The network
# -----------
# Fully connected, 5 -> 1000 -> 1000 -> 25 with ELU, on a batch of 100 rows: the size of many surrogates of
# simulations. Derivatives are taken of each row by itself, so a Jacobian has shape (100, 25, 5) and a Hessian
# (100, 25, 5, 5).

import torch

from funcdiff.problems import study_network

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = study_network().to(device).requires_grad_(False)  # we differentiate in the inputs alone
batch = torch.randn(100, 5, device=device)

# %%
# By hand
# -------
# For one row, with layers :math:`x_l = \mathrm{elu}(W_l x_{l-1} + b_l)`, the chain rule multiplies, layer by layer,
# by the weight and by the slope of ELU, which is :math:`1` where its input is positive and :math:`e^z` elsewhere.


def jacobian_by_hand(network, x):
    jacobian = None
    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            x = layer(x)
            jacobian = layer.weight @ jacobian if jacobian is not None else layer.weight.expand(len(x), -1, -1)
        else:
            jacobian = x.clamp(max=0).exp()[..., None] * jacobian
            x = layer(x)
    return jacobian


# %%
# The recipes
# -----------
# Both Jacobians and all Hessians, outer over inner; ``torch.func.hessian`` is forward over reverse. Each is mapped over
# the rows. The Jacobians are equal to the chain rule; the Hessians, on two rows, to each other.

from funcdiff import (
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
    hessian_taylor,
    jacobian_forward,
    jacobian_reverse,
)

hessians = [hessian_forward_over_forward, hessian_forward_over_reverse, hessian_taylor]
lighter = [jacobian_forward, jacobian_reverse, *hessians]
heavy = [hessian_reverse_over_forward, hessian_reverse_over_reverse]


def by_rows(network, ways):
    """Each way mapped over a batch, by name."""
    return {way.__name__: torch.func.vmap(way(network)) for way in ways}


# %%

every = by_rows(network, lighter + heavy)
for name, derivative in every.items():
    if name.startswith("jacobian"):
        torch.testing.assert_close(derivative(batch), jacobian_by_hand(network, batch))
    else:
        expected = every["hessian_forward_over_reverse"](batch[:2])
        torch.testing.assert_close(derivative(batch[:2]), expected, rtol=1e-3, atol=1e-5)

# %%
# Prediction
# ----------
# All are counted exactly, at the full batch. On torch's *meta* device there are shapes and no numbers, so that
# counting the worst takes neither its time nor its gigabytes.

from funcdiff.measure import compare, count, predict, sweep
from funcdiff.plots import plot

meta = study_network().to("meta").requires_grad_(False)
costs = count({"evaluation": meta, **by_rows(meta, lighter + heavy)}, torch.empty(100, 5, device="meta"))
costs

# %%
# A Jacobian in forward mode is a pass for each of 5 inputs, in reverse mode one for each of 25 outputs. A Hessian
# multiplies the passes of its two modes; with reverse mode outside, it pulls back each of the 125 entries of the inner
# Jacobian. Taylor mode carries first and second derivatives along together, and each mixed one once.

costs.claim("hessian_forward_over_forward", fewer_flops_than="hessian_forward_over_reverse", by=3)

# %%
costs.claim("hessian_forward_over_forward", fewer_flops_than="hessian_reverse_over_reverse", by=50)

# %%
costs.claim("hessian_taylor", fewer_flops_than="hessian_forward_over_forward", by=2)

# %%
costs.claim("hessian_taylor", smaller_peak_than="hessian_reverse_over_reverse", by=50)

# %%
# Measurement: evaluation, and in and out of NumPy
# ------------------------------------------------
# Simulations speak NumPy. The way in and out shares memory on a CPU, so it should be lost beside the evaluation.

from funcdiff.arrays import numpy_function

evaluate = numpy_function(network)
array = batch.cpu().numpy()
round_trip = numpy_function(lambda x: x, device=device)
seam = {"round trip": round_trip, "to NumPy": lambda _: batch.cpu().numpy(), "evaluation": evaluate}
seam_times = compare(seam, array, equal=False, rounds=15)
seam_times

# %%
seam_times.claim("round trip", faster_than="evaluation", by=10)

# %%
# The full batch
# --------------
# Of the Hessians, those without reverse mode outside. A call over half a second is made once and marked.

full = compare({"evaluation": network, **by_rows(network, lighter)}, batch, equal=False, rounds=16, budget=0.5)
full

# %%
full.claim("jacobian_forward", faster_than="jacobian_reverse")

# %%
full.claim("hessian_taylor", faster_than="hessian_forward_over_reverse", by=3)

# %%
full.claim("hessian_taylor", faster_than="hessian_forward_over_forward")

# %%
# Does the count predict the time?
# --------------------------------
# We give all methods one rate, in FLOPs a second, and predict each time from its count alone.

prediction = predict(full, {name: costs[name] for name in full})
prediction

# %%
plot(prediction, title="The count of matrix FLOPs predicts the time of each method, on one line")
print(prediction.largest)

# %%
# Taylor mode's Hessian and reverse mode's Jacobian are only a fifth apart. Does the clock order even these?

prediction.rank_order()

# %%
# All Hessians, in a smaller batch
# --------------------------------
# With 10 rows the two worst take part as well.

hessian_times = compare(by_rows(network, hessians + heavy), batch[:10], equal=False, rounds=12, budget=0.8)
hessian_times.claim("hessian_forward_over_forward", faster_than="hessian_reverse_over_reverse", by=20)

# %%
hessian_prediction = predict(hessian_times, count(by_rows(meta, hessians + heavy), torch.empty(10, 5, device="meta")))
hessian_prediction

# %%
plot(hessian_prediction, title="All Hessians of 10 rows: the count predicts the time of the worst as well")
print(hessian_prediction.largest)

# %%
hessian_prediction.rank_order()

# %%
# The count leaves out all that is no product of matrices. Second derivatives go through ELU by products and sums of
# large tensors: Taylor mode starts more operations than reverse mode, and writes more, which weighs with few rows.

costs.claim("jacobian_reverse", fewer_operations_than="hessian_taylor", by=2)

# %%
from torch.profiler import profile

for name in ("jacobian_reverse", "hessian_taylor"):
    with profile() as profiler:
        every[name](batch)
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    share = sum(spent.get(f"aten::{product}", 0) for product in ("mm", "addmm", "bmm")) / sum(spent.values())
    print(f"{name}: {costs[name].bytes_written / 1e6:.0f} MB written, matrix products {share:.0%} of its time")
assert costs["hessian_taylor"].bytes_written > costs["jacobian_reverse"].bytes_written

# %%
# Batch size and width
# --------------------
# At few rows, and in narrow networks, a call costs what its operations cost to start; from some size on, the FLOPs
# take over and the curves run parallel.


def with_rows(rows):
    return by_rows(network, lighter), (batch[:rows],)


study = sweep(with_rows, [1, 4, 16], label="rows B", equal=False, rounds=8, budget=0.05)
plot(study, title="Rows: the curves of the methods rise, and part, as FLOPs take over")

# %%


def of_width(width):
    small = study_network((5, width, width, 25)).to(device).requires_grad_(False)
    return by_rows(small, lighter), (batch[:10],)


study = sweep(of_width, [10, 100, 1000], label="width of the hidden layers", equal=False, rounds=8, budget=0.05)
plot(study, title="Width: the wider the network, the more the matrix products decide")

# %%
# What breaks
# -----------
# The count of FLOPs is no guide for a small network: there it is operations that are paid for, and the method with
# fewer FLOPs may start more of them. At width 10, forward mode still computes less, and starts more.

small, args = of_width(10)
small_costs = count(small, *args)
small_costs.claim("jacobian_forward", fewer_flops_than="jacobian_reverse")

# %%
small_costs.claim("jacobian_reverse", fewer_operations_than="jacobian_forward")

# %%
# The prediction from FLOPs for this network, to be held against the one above:

predict(study[10], small_costs)

# %%
# Takeaway
# --------
# For a network with a thousand units a layer the count of FLOPs decides, it can be taken without a run, and it says:
# with few inputs, forward mode for first derivatives, Taylor mode for second ones. The exceptions: a small network pays
# by the operation, so compare operations too; and a layer with a wrong or missing forward formula needs reverse mode,
# at its price.
