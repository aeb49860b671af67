r"""
What do the derivatives of my network cost?
===========================================

Count the cost of a derivative in evaluations of the network. With 5 inputs and 25 outputs, a Jacobian costs 6
evaluations column by column, and 26 row by row. A Hessian costs 21 evaluations by the best method, and about 156 by
``torch.func.hessian``. A batch multiplies all of this by its number of rows.

In general, :math:`n` inputs and :math:`m` outputs cost :math:`1 + n` or :math:`1 + m` evaluations for the Jacobian. The
Hessian costs :math:`1 + n + n(n+1)/2` if each second derivative is computed once, and about :math:`(1 + n)(1 + m)` by
``torch.func.hessian``.

**Answer:** Call ``batch_jacobian(f)(X)`` and ``batch_hessian(f)(X)``, which count the FLOPs of each method and choose a
fast one. You can count before you run anything: for a wide network, times follow the count.

.. code-block:: python

    from funcdiff import batch_hessian, batch_jacobian

    jacobians = batch_jacobian(network)(X)  # (B, outputs, inputs)
    hessians = batch_hessian(network)(X)  # (B, outputs, inputs, inputs)
"""

# %%
# Use it
# ------
# Our network has 5 inputs, two hidden layers of 1000 units with ELU, and 25 outputs: the size of many surrogates. We
# differentiate it for 100 rows with respect to the input, so we freeze its parameters.

import torch

from funcdiff import batch_hessian, batch_jacobian
from funcdiff.problems import study_network

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = study_network((5, 1000, 1000, 25)).to(device).requires_grad_(False)
batch = torch.randn(100, 5, device=device)

print("Jacobians:", tuple(batch_jacobian(network)(batch).shape))
print("Hessians:", tuple(batch_hessian(network)(batch).shape))

# %%
# Check it by hand
# ----------------
# For layers :math:`x_l = \mathrm{elu}(W_l x_{l-1} + b_l)`, the chain rule multiplies by the weight and by the slope of
# ELU, layer by layer. The slope is :math:`1` where the argument :math:`z` of ELU is positive, else :math:`e^z`.


def jacobian_by_hand(network, x):
    jacobian = torch.eye(x.shape[1], device=device).expand(len(x), -1, -1)
    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            jacobian = layer.weight @ jacobian
        else:
            jacobian = x.clamp(max=0).exp()[..., None] * jacobian
        x = layer(x)
    return jacobian


expected = jacobian_by_hand(network, batch)
torch.testing.assert_close(batch_jacobian(network)(batch), expected)

# %%
# We compare with recipes by name, each mapped over the rows. The name of a Hessian is "outer over inner": forward over
# reverse applies forward mode to the result of reverse mode, as ``torch.func.hessian`` does.

from funcdiff import (
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
    hessian_taylor,
    jacobian_forward,
    jacobian_reverse,
)

jacobians = [jacobian_forward, jacobian_reverse]
light = [hessian_taylor, hessian_forward_over_forward, hessian_forward_over_reverse]
heavy = [hessian_reverse_over_forward, hessian_reverse_over_reverse]


def by_name(network, *recipes):
    return {recipe.__name__: torch.func.vmap(recipe(network)) for recipe in recipes}


# %%
# The Jacobians equal the chain rule, and the Hessians equal each other, on two rows.

close = torch.testing.assert_close
every = by_name(network, *jacobians, *light, *heavy)
reference = batch_hessian(network)(batch[:2])
for name, derivative in every.items():
    if name.startswith("jacobian"):
        close(derivative(batch), expected)
    else:
        close(derivative(batch[:2]), reference, rtol=1e-3, atol=1e-5)

# %%
# Count
# -----
# How many FLOPs and how much memory does each method need? We count them for the full batch. On the :term:`meta
# device`, tensors have shapes but no numbers, so counting takes neither the time nor the gigabytes of a method.

from funcdiff.measure import compare, count, predict, sweep
from funcdiff.plots import plot


def chosen(network):
    return {
        "batch_jacobian": batch_jacobian(network),
        "batch_hessian": batch_hessian(network),
    }


meta = study_network().to("meta").requires_grad_(False)
names = by_name(meta, *jacobians, *light, *heavy)
candidates = {"evaluation": meta, **chosen(meta), **names}
costs = count(candidates, torch.empty(100, 5, device="meta"))
costs

# %%
# Look at the FLOPs of the Hessians. With reverse mode outside, each of the 125 entries of the inner Jacobian needs a
# backward pass. Forward over forward needs a pass for each pair of inputs. :term:`Taylor mode` computes each mixed
# derivative only once, and ``batch_hessian`` chose it:

assert costs["batch_hessian"].flops == costs["hessian_taylor"].flops
costs.claim("batch_hessian", fewer_flops_than="hessian_forward_over_forward", by=2)

# %%
# This is the comparison with ``torch.func.hessian``, which is forward over reverse:

costs.claim("batch_hessian", fewer_flops_than="hessian_forward_over_reverse", by=8)

# %%
# This is the comparison with the most expensive method:

costs.claim("batch_hessian", fewer_flops_than="hessian_reverse_over_reverse", by=100)

# %%
# The peaks of their memory differ even more:

costs.claim("batch_hessian", smaller_peak_than="hessian_reverse_over_reverse", by=50)

# %%
# Time
# ----
# We time the full batch, without the two heavy methods. A method that needs more than half a second is timed once.

timed = {
    "evaluation": network,
    **chosen(network),
    **by_name(network, *jacobians, *light[1:]),
}
full = compare(timed, batch, equal=False, rounds=16, budget=0.5)
full

# %%
# The fastest method comes first. This is the gain over ``torch.func.hessian``:

full.claim("batch_hessian", faster_than="hessian_forward_over_reverse", by=3)

# %%
# This is the gain over reverse mode for first derivatives:

full.claim("batch_jacobian", faster_than="jacobian_reverse", by=2)

# %%
# Forward mode needs seven passes where Taylor mode needs six. This run shows whether the difference matters:

full.claim("batch_jacobian", faster_than="jacobian_forward")

# %%
# Does the count predict the time?
# --------------------------------
# If arithmetic takes all the time, a method with twice the FLOPs takes twice as long. We test this. One rate for all
# methods, in FLOPs per second, predicts each time from its count alone.

prediction = predict(full, {name: costs[name] for name in full})
plot(prediction)
print(prediction.largest)

# %%
# Each point is a method; on the dashed line, measured and predicted time are equal. Does the count also order them?

prediction.rank_order()

# %%
# With 10 rows we can time all five Hessians, including the two heavy ones.

all_five = by_name(network, *light, *heavy)
options = {"equal": False, "rounds": 12, "budget": 0.8}
hessian_times = compare(all_five, batch[:10], **options)
counted = by_name(meta, *light, *heavy)
hessian_costs = count(counted, torch.empty(10, 5, device="meta"))
hessian_prediction = predict(hessian_times, hessian_costs)
plot(hessian_prediction)
print(hessian_prediction.largest)

# %%
# The points cover the range from the fastest method to the slowest. Again we ask whether the count orders them:

hessian_prediction.rank_order()

# %%
# The fastest and the slowest differ by this factor:

hessian_times.claim("hessian_taylor", faster_than="hessian_reverse_over_reverse", by=50)

# %%
# The count contains matrix products only. Taylor mode also multiplies and adds large tensors to differentiate ELU. The
# profiler shows what share of the time the matrix products take.

from torch.profiler import profile

for name in ("jacobian_reverse", "hessian_taylor"):
    with profile() as profiler:
        every[name](batch)
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    products = sum(spent.get(f"aten::{kind}", 0) for kind in ("mm", "addmm", "bmm"))
    share = products / sum(spent.values())
    print(f"{name}: matrix products take {share:.0%} of the time")
assert costs["hessian_taylor"].bytes_written > costs["jacobian_reverse"].bytes_written
costs.claim("jacobian_reverse", fewer_operations_than="hessian_taylor", by=2)

# %%
# NumPy in and out
# ----------------
# Simulations often use NumPy. On a CPU, arrays and tensors share memory, so we expect the conversion to cost little
# compared with an evaluation.

from funcdiff.arrays import numpy_function

round_trip = numpy_function(lambda x: x, device=device)
evaluate = numpy_function(network)
conversion = {"round trip": round_trip, "evaluation": evaluate}
seam = compare(conversion, batch.cpu().numpy(), equal=False, rounds=15)
seam.claim("round trip", faster_than="evaluation", by=10)

# %%
# Rows and width
# --------------
# With few rows, or in a narrow network, a call costs what its operations cost to start. We vary the number of rows
# first.


def with_rows(rows):
    return by_name(network, *jacobians, *light), (batch[:rows],)


options = {"equal": False, "rounds": 8, "budget": 0.05}
plot(sweep(with_rows, [1, 4, 16], label="rows B", **options))

# %%
# Where the lines rise and separate, FLOPs matter more than the number of operations. Next we vary the width.


def of_width(width):
    small = study_network((5, width, width, 25)).to(device).requires_grad_(False)
    return by_name(small, *jacobians, *light), (batch[:10],)


study = sweep(of_width, [10, 100, 1000], label="width of the hidden layers", **options)
plot(study)

# %%
# Narrow networks pay for each operation, however small it is, so the lines are flat on the left and rise on the right.
#
# What goes wrong
# ---------------
# *FLOPs do not predict the time of a small network.* At width 10, forward mode needs fewer FLOPs than reverse mode:

small, args = of_width(10)
small_costs = count(small, *args)
small_costs.claim("jacobian_forward", fewer_flops_than="jacobian_reverse")

# %%
# But it starts more operations, and starting them is most of the time of so small a network:

small_costs.claim("jacobian_reverse", fewer_operations_than="jacobian_forward")

# %%
# In the prediction for this network, "measured / predicted" shows how far the count is from the time.

narrow = predict(study[10], small_costs)
print(narrow.largest)
narrow

# %%
# Takeaway
# --------
# For a network with a thousand units in each layer the count of FLOPs decides, and you can count without running
# anything. ``batch_jacobian`` and ``batch_hessian`` do so for you.
#
# * If the network is small, operations decide: compare their number, or measure.
# * If an operation has no forward derivative, or a wrong one, reverse mode is needed, at its price. The automatic
#   recipes know these operations (:doc:`/guides/what_works`).
