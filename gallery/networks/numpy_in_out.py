r"""
How do I call a network and its derivatives from NumPy?
=======================================================

Simulations and optimisers speak NumPy and float64; networks speak torch and float32. The seam between the two is where
dtypes clash, graphs leak out, and a loop over rows turns a batch into a crawl.

**Answer:** wrap once, :func:`funcdiff.arrays.numpy_function`: of the network, of its Jacobian, of its Hessian. Arrays
go in, arrays come out, and a whole batch goes in one call.
"""

# %%
# The network
# -----------
# A small surrogate, 2 -> 100 -> 100 -> 3, in torch's own float32, and a batch of inputs in NumPy's own float64. It
# lives on a GPU if there is one; arrays do not.

import numpy as np
import torch

from funcdiff.problems import study_network

device = "cuda" if torch.cuda.is_available() else "cpu"
network = study_network((2, 100, 100, 3), activation=torch.nn.GELU).to(device)
x = np.random.default_rng(0).uniform([-2.0, -1.0], [2.0, 1.0], size=(100, 2))

# %%
# By hand
# -------
# In: the array becomes a tensor of the network's dtype, on its device. Out: the result is detached from the graph that
# training would need, fetched to the CPU, and becomes an array.


def by_hand(func, x):
    tensor = torch.from_numpy(x).to(device, torch.float32)
    return func(tensor).detach().cpu().numpy()


# %%
# The recipe
# ----------
# The dtype and device of a network are read from its parameters. A transform does not show them, so there we state
# them.

from funcdiff import batch_hessian, batch_jacobian, hessian_forward_over_forward, jacobian_forward
from funcdiff.arrays import numpy_function

first = batch_jacobian(network, jacobian=jacobian_forward)
second = batch_hessian(network, hessian=hessian_forward_over_forward)
values = numpy_function(network)
jacobian = numpy_function(first, dtype=torch.float32, device=device)
hessian = numpy_function(second, dtype=torch.float32, device=device)

for ours, func in ((values, network), (jacobian, first), (hessian, second)):
    np.testing.assert_array_equal(ours(x), by_hand(func, x))
    print(ours(x).shape, ours(x).dtype)

# %%
# With a network in float64 nothing is converted: memory is shared, and results carry the digits that an optimiser
# wants. Central differences of the values confirm the Jacobian.

precise = study_network((2, 100, 100, 3), activation=torch.nn.GELU, dtype=torch.float64).to(device)
value, slopes = numpy_function(precise), numpy_function(batch_jacobian(precise), device=device)
h = 1e-6
for i, step in enumerate(h * np.eye(2)):
    np.testing.assert_allclose(slopes(x)[:, :, i], (value(x + step) - value(x - step)) / (2 * h), atol=1e-8)

# %%
# What freezing saves
# -------------------
# Parameters that require gradients make torch keep a graph of everything, also under a Jacobian in the inputs. Where
# nobody trains, we freeze them, and count what is held at the peak.

from funcdiff.measure import compare, count
from funcdiff.plots import plot

many = torch.rand(1000, 2, device=device)
frozen = study_network((2, 100, 100, 3), activation=torch.nn.GELU).to(device).requires_grad_(False)
costs = count({"trainable": second, "frozen": batch_hessian(frozen, hessian=hessian_forward_over_forward)}, many)
costs.claim("frozen", smaller_peak_than="trainable")

# %%
# Prediction
# ----------
# In and out is a conversion of the inputs and nothing for the results. A loop over rows starts all operations once a
# row; a batch starts them once.


def row_by_row(x):
    return np.concatenate([jacobian(x[i : i + 1]) for i in range(len(x))])


rows = torch.from_numpy(x).to(device, torch.float32)
costs = count({"batch": lambda: jacobian(x), "row by row": lambda: row_by_row(x), "tensors": lambda: first(rows)})
costs

# %%
costs.claim("batch", fewer_operations_than="row by row", by=50)

# %%
# Measurement
# -----------

candidates = {
    "batch": lambda: torch.from_numpy(jacobian(x)),
    "row by row": lambda: torch.from_numpy(row_by_row(x)),
    "tensors": lambda: first(rows).cpu(),
}
times = compare(candidates, rounds=9)
times

# %%
times.claim("batch", faster_than="row by row", by=5)

# %%
plot(times, title="The batch in one call, its rows one by one, and tensors throughout")

# %%
# What the way through NumPy costs beside tensors, if this run can tell:

times.claim("tensors", faster_than="batch")

# %%
# An optimiser of SciPy
# ---------------------
# It calls with one vector and wants a number and a gradient, both float64. We look for the input whose outputs are
# closest to those at a point we know.

from scipy.optimize import least_squares

known = np.array([0.5, -0.25])
target = value(known)
residual = numpy_function(lambda x: precise(x) - torch.as_tensor(target, device=x.device), device=device)
slope = numpy_function(jacobian_forward(precise), device=device)
found = least_squares(residual, x0=np.zeros(2), jac=slope, xtol=1e-12, ftol=1e-12, gtol=1e-12)
np.testing.assert_allclose(found.x, known, atol=1e-6)
print(found.x, "after", found.nfev, "evaluations")

# %%
# What breaks
# -----------
# Without the wrapper, a float64 array meets float32 weights:

try:
    network(torch.from_numpy(x).to(device))
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("torch now mixes float64 inputs and float32 weights: update this section, What breaks")

# %%
# And NumPy cannot be used *inside* what is differentiated: it sees a number and no derivative.

try:
    jacobian_forward(lambda x: torch.from_numpy(np.sin(x.numpy())))(torch.ones(2))
except (RuntimeError, TypeError) as error:
    print(type(error).__name__, "--", str(error).split("\n")[0])
else:
    raise AssertionError("NumPy inside a function is now seen by forward mode: update this section, What breaks")

# %%
# Takeaway
# --------
# Wrap the outermost function once and hand it whole batches; keep all that is differentiated in torch. The exception is
# a network of microseconds called row by row by a program that cannot batch: there the operations of each call are the
# price, and only fewer calls lower it.
