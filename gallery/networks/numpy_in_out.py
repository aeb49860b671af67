r"""
How do I call a network and its derivatives from NumPy?
=======================================================

Your simulation or optimizer uses NumPy arrays, and your network uses torch tensors. In each call, three things must be
converted: the array to a tensor, its float64 numbers to the float32 of the network, and the result back to an array. If
you forget the second one, torch raises an error.

``numpy_function`` does all three. It takes a function of tensors and returns a function of arrays. Take a network with
2 inputs and 3 outputs, and an array of 5 rows. The network returns an array of shape (5, 3). Its Jacobians have the
shape (5, 3, 2).

**Answer:** Wrap each function once with :func:`funcdiff.arrays.numpy_function`: the network,
``batch_jacobian(network)`` and ``batch_hessian(network)``. Then pass whole batches, because a loop over rows is slow.
Do not use NumPy inside the function, because torch cannot differentiate it.

.. code-block:: python

    import torch
    from funcdiff import batch_jacobian
    from funcdiff.arrays import numpy_function

    values = numpy_function(network)
    jacobians = numpy_function(batch_jacobian(network), dtype=torch.float32)
    jacobians(array)  # (B, n) in, (B, m, n) out

    tensor = torch.from_numpy(array).to(torch.float32)  # the same by hand
    batch_jacobian(network)(tensor).detach().numpy()
"""

# %%
# Use it
# ------
# Our network uses float32, torch's default. The array has float64 numbers, NumPy's default. ``numpy_function`` reads
# the dtype and the device of a network from its parameters. ``batch_jacobian(network)`` is a plain function without
# parameters, so you pass its dtype and device.

import numpy as np
import torch

from funcdiff import batch_hessian, batch_jacobian
from funcdiff.arrays import numpy_function
from funcdiff.problems import study_network

device = "cuda" if torch.cuda.is_available() else "cpu"
gelu = torch.nn.GELU
network = study_network((2, 100, 100, 3), activation=gelu).to(device)
draws = np.random.default_rng(0)
x = draws.uniform([-2.0, -1.0], [2.0, 1.0], size=(100, 2))

first, second = batch_jacobian(network), batch_hessian(network)
values = numpy_function(network)
jacobians = numpy_function(first, dtype=torch.float32, device=device)
hessians = numpy_function(second, dtype=torch.float32, device=device)
for name, func in {"f": values, "J": jacobians, "H": hessians}.items():
    print(name, func(x).shape, func(x).dtype)

# %%
# Check it by hand
# ----------------
# By hand we turn the array into a tensor with the dtype and the device of the network. We detach the result from its
# graph, move it to the CPU, and turn it into an array. The results are equal.


def by_hand(func, x):
    tensor = torch.from_numpy(x).to(device, torch.float32)
    return func(tensor).detach().cpu().numpy()


for wrapped, func in ((values, network), (jacobians, first), (hessians, second)):
    np.testing.assert_array_equal(wrapped(x), by_hand(func, x))

# %%
# If the network is in float64 and on the CPU, nothing is converted: arrays and tensors share their memory. We check the
# Jacobians of such a network against finite differences.

double = torch.float64
precise = study_network((2, 100, 100, 3), activation=gelu, dtype=double).to(device)
value = numpy_function(precise)
slopes = numpy_function(batch_jacobian(precise), device=device)
h = 1e-6
for i, step in enumerate(h * np.eye(2)):
    difference = (value(x + step) - value(x - step)) / (2 * h)
    np.testing.assert_allclose(slopes(x)[:, :, i], difference, atol=1e-8)

# %%
# With an optimizer of SciPy
# --------------------------
# Which input :math:`x` gives a known output? SciPy's ``least_squares`` finds it. It needs the residuals, which are the
# outputs minus the known ones, and their Jacobian. It passes one vector and no batch, so we wrap
# :func:`funcdiff.jacobian`.

from scipy.optimize import least_squares

from funcdiff import jacobian

known = np.array([0.5, -0.25])
target = torch.as_tensor(value(known), device=device)
residual = numpy_function(lambda x: precise(x) - target, device=device)
slope = numpy_function(jacobian(precise), device=device)
exact = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
found = least_squares(residual, x0=np.zeros(2), jac=slope, **exact)
np.testing.assert_allclose(found.x, known, atol=1e-6)
print(found.x, "after", found.nfev, "evaluations")

# %%
# Count
# -----
# What does the conversion cost, and what does a loop cost? We count a whole batch, a loop over its rows, and the same
# Jacobians of tensors without NumPy.

from funcdiff.measure import compare, count
from funcdiff.plots import plot


def row_by_row(x):
    return np.concatenate([jacobians(x[i : i + 1]) for i in range(len(x))])


rows = torch.from_numpy(x).to(device, torch.float32)
costs = count(
    {
        "batch": lambda: jacobians(x),
        "row by row": lambda: row_by_row(x),
        "tensors": lambda: first(rows),
    }
)
costs

# %%
# "Batch" differs from "tensors" only by the conversion of the inputs. The loop repeats all operations for every row:

costs.claim("batch", fewer_operations_than="row by row", by=40)

# %%
# If the parameters require gradients, torch keeps the intermediate results for a later ``backward()``. This takes
# memory even if you differentiate only with respect to the input. We call ``requires_grad_(False)`` on a second network
# and count the peak.

frozen = study_network((2, 100, 100, 3), activation=gelu).to(device)
frozen.requires_grad_(False)
many = torch.rand(1000, 2, device=device)
peaks = count({"trainable": second, "frozen": batch_hessian(frozen)}, many)
peaks.claim("frozen", smaller_peak_than="trainable")

# %%
# Time
# ----
# We time the three methods of the first count.

candidates = {
    "batch": lambda: torch.from_numpy(jacobians(x)),
    "row by row": lambda: torch.from_numpy(row_by_row(x)),
    "tensors": lambda: first(rows).cpu(),
}
times = compare(candidates, rounds=9)
times

# %%
# We expect the loop to be much slower:

times.claim("batch", faster_than="row by row", by=5)

# %%
# What does the conversion cost? This run shows whether it is measurable:

times.claim("tensors", faster_than="batch")

# %%
# The figure shows all three.

ratio = times.ratio("row by row", "batch").median
plot(times, title=f"A loop over the rows takes {ratio:.3g}× the time of the batch")

# %%
# "Row by row" should be far from the other two. The number of calls matters much more than the conversion.
#
# What goes wrong
# ---------------
# *You pass float64 numbers to a float32 network.* Without the wrapper, this raises an error.

try:
    network(torch.from_numpy(x).to(device))
except RuntimeError as error:
    print("RuntimeError:", error)
else:
    raise AssertionError("torch now mixes float64 and float32: update this section")

# %%
# *You use NumPy inside the function.* Torch cannot differentiate NumPy, so it raises an error. Write the function with
# torch, and wrap it outside.

try:
    jacobian(lambda x: torch.from_numpy(np.sin(x.numpy())))(torch.ones(2))
except (RuntimeError, TypeError) as error:
    print(f"{type(error).__name__}:", str(error).split("\n")[0])
else:
    raise AssertionError("NumPy can now be differentiated: update this section")

# %%
# Takeaway
# --------
# Write everything that is differentiated in torch, wrap the outermost function once, and pass whole batches.
#
# * If a program can only pass single rows to a small network, the overhead of each call decides: make fewer calls, or
#   prepare the derivative (:doc:`/tutorials/measuring/prepared`).
