r"""
What do the derivatives of my network cost?
===========================================

We count the cost of a derivative in evaluations of the network. With 5 inputs and 25 outputs, one row costs:

* 7 evaluations for the Jacobian with ``jacfwd``: 1 for the values, 1 for each of the 5 columns, and 1 more for products
  with zeros.
* 26 for the Jacobian with ``jacrev``: 1 for the values and about 1 for each of the 25 rows.
* Up to 182 for the Hessian with ``torch.func.hessian``, which is ``jacfwd`` of ``jacrev``: (2 + 5) · (1 + 25). One of
  the 2 + 5 is again for products with the derivatives of the weights, which are zero.
* 21 for the Hessian with the best method: 1 for the values, 5 for the first derivatives and 15 for the second ones. An
  output has 25 second derivatives, but its Hessian is symmetric, so only 15 of them differ.

**Answer:** Call ``batch_jacobian(network)(X)`` and ``batch_hessian(network)(X)``. They count the FLOPs (floating-point
operations) of each method, and choose a fast one. For a wide network the times follow these counts; for a narrow one
they do not, because starting the operations takes most of the time.

.. code-block:: python

    import torch
    from funcdiff import batch_hessian, batch_jacobian

    jacobians = batch_jacobian(network)(X)  # (B, outputs, inputs)
    hessians = batch_hessian(network)(X)  # (B, outputs, inputs, inputs)
    # The same in torch alone, at a higher cost:
    hessians = torch.func.vmap(torch.func.hessian(network))(X)
"""

# %%
# Use it
# ------
# Our network has 5 inputs, two hidden layers of 1000 units with ELU, and 25 outputs. We differentiate it with respect
# to its input, for 100 rows. We never differentiate with respect to the parameters, so we call
# ``requires_grad_(False)``.

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
# Each layer is :math:`x_l = \mathrm{elu}(W_l x_{l-1} + b_l)`. The chain rule multiplies the Jacobian by :math:`W_l`,
# then each row by the slope of ELU. It is 1 if the argument :math:`z` of ELU is positive, and :math:`e^z` otherwise.


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
# We compare with seven recipes (methods) by name. ``vmap`` applies each of them to all rows. The name of a Hessian is
# :term:`outer over inner`: "forward over reverse" applies forward mode to the result of reverse mode. This is what
# ``torch.func.hessian`` does.

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
# The Jacobians equal the result of the chain rule. On two rows, the Hessians equal each other.

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
# How many FLOPs and how much memory does each method need? We count them for all 100 rows. On the :term:`meta device`,
# tensors have shapes but no numbers, so counting takes no time and no memory.

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
# Look at the FLOPs of the Hessians. The last two differentiate the Jacobian in reverse mode: each of its 5 x 25 = 125
# entries needs a backward pass. Forward over forward needs a pass for each pair of inputs, and computes the values more
# than once. :term:`Taylor mode` computes each number only once. ``batch_hessian`` chose it:

assert costs["batch_hessian"].flops == costs["hessian_taylor"].flops
costs.claim("batch_hessian", fewer_flops_than="hessian_forward_over_forward", by=2)

# %%
# ``torch.func.hessian`` is forward over reverse. Compared with it:

costs.claim("batch_hessian", fewer_flops_than="hessian_forward_over_reverse", by=8)

# %%
# Compared with the most expensive method:

costs.claim("batch_hessian", fewer_flops_than="hessian_reverse_over_reverse", by=100)

# %%
# The peak is the largest memory in use at any moment. Here the methods differ even more:

costs.claim("batch_hessian", smaller_peak_than="hessian_reverse_over_reverse", by=50)

# %%
# Time
# ----
# We time all 100 rows. We leave out the last two methods of the table, and ``hessian_taylor``, because
# ``batch_hessian`` chose it. A method that needs more than half a second is timed once.

timed = {
    "evaluation": network,
    **chosen(network),
    **by_name(network, *jacobians, *light[1:]),
}
full = compare(timed, batch, equal=False, rounds=11, budget=0.5)
full

# %%
# The fastest method comes first. This is the gain over ``torch.func.hessian``:

full.claim("batch_hessian", faster_than="hessian_forward_over_reverse", by=3)

# %%
# This is the gain over reverse mode for first derivatives:

full.claim("batch_jacobian", faster_than="jacobian_reverse", by=2)

# %%
# Does the count predict the time?
# --------------------------------
# If arithmetic takes all the time, a method with twice the FLOPs takes twice as long. Then one number, the FLOPs per
# second of this machine, is enough to predict all times. We fit this number and compare.

prediction = predict(full, {name: costs[name] for name in full})
plot(prediction)
print(prediction.largest)

# %%
# Each point is a method. On the dashed line, both times are equal. Is their order predicted correctly, too?

prediction.rank_order()

# %%
# With 10 rows we can time all five Hessians, including the two heavy ones.

all_five = by_name(network, *light, *heavy)
options = {"equal": False, "rounds": 9, "budget": 0.8}
hessian_times = compare(all_five, batch[:10], **options)
counted = by_name(meta, *light, *heavy)
hessian_costs = count(counted, torch.empty(10, 5, device="meta"))
hessian_prediction = predict(hessian_times, hessian_costs)
plot(hessian_prediction)
print(hessian_prediction.largest)

# %%
# Now the points range from the fastest method to the slowest. Again we ask whether the count predicts their order:

hessian_prediction.rank_order()

# %%
# The slowest method takes this many times as long as the fastest:

hessian_times.claim("hessian_taylor", faster_than="hessian_reverse_over_reverse", by=50)

# %%
# Why is the prediction not exact? The count contains only matrix products, and these run at different speeds for
# different sizes. The profiler shows the share of the time that they take. Other operations take the rest.

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
# Simulations often use NumPy. On a CPU, arrays and tensors share memory, so the conversion should take little time.

from funcdiff.arrays import numpy_function

round_trip = numpy_function(lambda x: x, device=device)
conversion = {"round trip": round_trip, "evaluation": numpy_function(network)}
seam = compare(conversion, batch.cpu().numpy(), equal=False, rounds=15)
seam.claim("round trip", faster_than="evaluation", by=10)

# %%
# Rows and width
# --------------
# With few rows or a narrow network, starting the operations takes most of the time. First we vary the number of rows.


def with_rows(rows):
    return by_name(network, *jacobians, *light), (batch[:rows],)


options = {"equal": False, "rounds": 8, "budget": 0.05}
plot(sweep(with_rows, [1, 4, 16], label="rows B", **options))

# %%
# Where the lines rise and separate, the FLOPs matter. In the table under the figure, a star marks the smallest median.
# The title names a method only if it is clearly faster at that size than every other one. Next we vary the width.


def of_width(width):
    small = study_network((5, width, width, 25)).to(device).requires_grad_(False)
    return by_name(small, *jacobians, *light), (batch[:10],)


study = sweep(of_width, [10, 100, 1000], label="width of the hidden layers", **options)
plot(study)

# %%
# On the left the lines are flat: starting the operations takes the same time. On the right they rise with the
# arithmetic.
#
# What goes wrong
# ---------------
# *FLOPs do not predict the time of a small network.* At width 10, forward mode needs fewer FLOPs than reverse mode:

small, args = of_width(10)
small_costs = count(small, *args)
small_costs.claim("jacobian_forward", fewer_flops_than="jacobian_reverse")

# %%
# But it runs more operations, and starting them takes most of the time:

small_costs.claim("jacobian_reverse", fewer_operations_than="jacobian_forward")

# %%
# The column "measured / predicted" shows how far the times are from the prediction:

narrow = predict(study[10], small_costs)
print(narrow.largest)
narrow

# %%
# Takeaway
# --------
# For a network with a thousand units in each layer, the method with the fewest FLOPs is the fastest or close to it.
# ``batch_jacobian`` and ``batch_hessian`` choose it for you.
#
# * If the network is small, the number of operations decides: count them, or measure.
# * If neither forward nor Taylor mode is right on an operation, the recipes take reverse mode, which costs more.
