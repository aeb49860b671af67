r"""
My data are on several machines: which product is the right one?
================================================================

In data-parallel training, each process has a share of the data. A Hessian-vector product through
``DistributedDataParallel`` then runs without an error, but it is the product for this process's share alone.
Eigenvalues computed from such products do not belong to the loss that you train.

**Answer:** On each process, call :func:`funcdiff.distributed.hvp_operator` with the loss of its own share and the
number of samples in it, and the network without a wrapper. For each product, every process multiplies by its own
Hessian, and the results are summed over the processes once. The result is the same to the last bit on all of them, so
each process can run ``eigsh`` by itself.

.. code-block:: python

    predict, parameters = module_function(network)  # not the DDP wrapper
    w, unravel = ravel(parameters)
    loss = lambda w: cross_entropy(predict(unravel(w), pixels), labels)  # own share
    product = hvp_operator(loss, w, samples=len(pixels))
    product(v)  # of the mean over all samples, on every process
"""

# %%
# Use it
# ------
# We import what both processes need.

import os
import tempfile

import numpy as np
import torch
import torch.distributed as dist
from joblib import Parallel, delayed
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from funcdiff import hessian, hvp, module_function, ravel
from funcdiff.distributed import hvp_operator

# %%
# We start two processes that communicate over gloo, torch's backend for CPUs. The function ``on_two_processes`` calls
# ``work`` in both and returns both results. If you start this file by ``torchrun --nproc-per-node 2``, it uses the two
# processes of torchrun instead.


def member(rank, store, work, *args):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    result = work(*args)
    dist.destroy_process_group()
    return result


def on_two_processes(work, *args):
    if "RANK" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            store = f"file://{folder}/store"
            return Parallel(2)(
                delayed(member)(rank, store, work, *args) for rank in (0, 1)
            )
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    results = [None, None]
    dist.all_gather_object(results, work(*args))
    return results


# %%
# We train a small classifier of handwritten digits for a few steps, before we divide the data.

images, digits = load_digits(return_X_y=True)
pixels, labels = torch.tensor(images[:500] / 16), torch.tensor(digits[:500])
torch.manual_seed(0)
layers = torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 10)
network = torch.nn.Sequential(*layers).double()
optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
for _ in range(40):
    optimizer.zero_grad()
    cross_entropy(network(pixels), labels).backward()
    optimizer.step()

# %%
# The shares are unequal: the first process has 350 images, the second has 150. Each makes the loss of its own share.

shares = [slice(0, 350), slice(350, 500)]


def objective(network, pixels, labels):
    predict, parameters = module_function(network)
    w, unravel = ravel(parameters)
    return lambda w: cross_entropy(predict(unravel(w), pixels), labels), w


def own_objective(network):
    own = shares[dist.get_rank()]
    loss, w = objective(network, pixels[own], labels[own])
    return loss, w, len(pixels[own])


# %%
# Each process runs Lanczos' method by itself. The products are the same on both, so both stay in step and find the same
# eigenvalues. ``which="BE"`` asks for both ends of the spectrum.


def both_ends(product, n):
    def matvec(v):
        return product(torch.tensor(v).reshape(n)).numpy()

    operator = LinearOperator((n, n), matvec=matvec, dtype=np.float64)
    start = {"v0": np.ones(n), "ncv": 60, "tol": 1e-9}
    return np.sort(
        eigsh(operator, k=12, which="BE", return_eigenvectors=False, **start)
    )


def spectrum(network):
    loss, w, count = own_objective(network)
    return both_ends(hvp_operator(loss, w, samples=count), len(w))


first, second = on_two_processes(spectrum, network)
print("smallest:", first[:3].round(4))
print("largest: ", first[-3:].round(4))
assert (first == second).all()

# %%
# Check it by hand
# ----------------
# One process with all 500 images can compute the whole Hessian of this small network. Its eigenvalues must be the same.

whole_loss, w = objective(network, pixels, labels)
everything = torch.linalg.eigvalsh(hessian(whole_loss, chunk_size=64)(w)).numpy()
np.testing.assert_allclose(first, np.r_[everything[:6], everything[-6:]], rtol=1e-6)

# %%
# The product follows from linearity. With :math:`N_r` of :math:`N` samples on process :math:`r`, the mean loss is
# :math:`f = \sum_r \frac{N_r}{N} f_r`, and so :math:`Hv = \sum_r \frac{N_r}{N} H_r v`. We compute this sum by hand.

v = torch.linspace(-1, 1, len(w), dtype=torch.float64)
expected = hvp(whole_loss, (w,), (v,))
by_hand = 0
for own in shares:
    own_loss, _ = objective(network, pixels[own], labels[own])
    by_hand += len(pixels[own]) / len(pixels) * hvp(own_loss, (w,), (v,))
torch.testing.assert_close(by_hand, expected)


def one_product(network):
    loss, w, count = own_objective(network)
    return hvp_operator(loss, w, samples=count)(v)


for found in on_two_processes(one_product, network):
    torch.testing.assert_close(found, expected)

# %%
# Count
# -----
# :func:`funcdiff.measure.count` counts what a process sends. We count the local product and the product over both.

from funcdiff import hvp_operator as local_operator
from funcdiff.measure import count


def costs(network):
    loss, w, n = own_objective(network)
    local, over_both = local_operator(loss, w), hvp_operator(loss, w, samples=n)
    return count({"local": local, "over both processes": over_both}, v)


counted, _ = on_two_processes(costs, network)
counted

# %%
# A product sends one vector, in one call, and computes nothing more than the local one. Over a ring of :math:`P`
# processes, each sends :math:`2 (P - 1) / P` times the bytes of this vector. Here it has :math:`n` numbers, and 33 more
# that tell all processes when one of them fails or passes a different vector.

sent = counted["over both processes"]
assert sent.collectives == 1
assert sent.bytes_sent == 8 * (len(w) + 33)
assert sent.flops == counted["local"].flops

# %%
# What the sum costs in time depends on the network between the machines: see :doc:`/explanation/scaling`.
#
# What goes wrong
# ---------------
# *Products through the wrapper.* ``DistributedDataParallel`` averages gradients only in ``backward()``. Here is the
# usual code of a Hessian-vector product, two calls of :func:`torch.autograd.grad`, through the wrapped network.

from torch.nn.parallel import DistributedDataParallel


def through_ddp(network):
    own = shares[dist.get_rank()]
    wrapped = DistributedDataParallel(network)
    parameters = list(wrapped.parameters())
    loss = cross_entropy(wrapped(pixels[own]), labels[own])
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    slope = torch.cat([g.reshape(-1) for g in slopes])
    return torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(slope @ v, parameters)]
    )


silent = on_two_processes(through_ddp, network)

# %%
# No error was raised. The two results differ from each other and from the right product: each is the product for one
# share.

for found, own in zip(silent, shares, strict=True):
    own_loss, _ = objective(network, pixels[own], labels[own])
    torch.testing.assert_close(found, hvp(own_loss, (w,), (v,)))
    gap = (found - expected).norm() / expected.norm()
    print(f"relative error {gap:.3f}")
    assert gap > 0.01, "DDP averages second derivatives now: rewrite this section"

# %%
# The figure shows the six smallest and the six largest eigenvalues: the right ones, and those that each process would
# find from its own products.

from funcdiff.plots import plot_curves


def spectrum_of_a_share(network):
    loss, w, _ = own_objective(network)
    return both_ends(local_operator(loss, w), len(w))


ends = on_two_processes(spectrum_of_a_share, network)
curves = {"all data": first, "share of 350": ends[0], "share of 150": ends[1]}
positions = np.arange(1, 13)
most = max(abs(end[-1] / first[-1] - 1) for end in ends)
plot_curves(
    {name: (positions, values) for name, values in curves.items()},
    xlabel="eigenvalue, six from each end",
    ylabel="value",
    title=f"The largest eigenvalue of one share is up to {most:.0%} off",
)

# %%
# On the right the curves separate: the error of the largest eigenvalue is in the title. The recipes raise an error for
# a wrapped module, even if a function hides it.


def refused(network):
    wrapped = DistributedDataParallel(network)
    try:
        module_function(wrapped)
    except ValueError as error:
        return str(error)


print(on_two_processes(refused, network)[0])

# %%
# *Different vectors on the processes.* A random vector that is drawn without a common seed differs between processes,
# and the sum of the products is then not a product with any vector. The operator raises an error on all processes, and
# names the ranks.


def own_vector(network):
    loss, w, count = own_objective(network)
    product = hvp_operator(loss, w, samples=count)
    try:
        product(v * (1 + dist.get_rank()))
    except ValueError as error:
        return str(error)


print(on_two_processes(own_vector, network)[0])

# %%
# Takeaway
# --------
# On each process, make the loss of its own share without a wrapper. :func:`funcdiff.distributed.hvp_operator` adds the
# products. Start the processes with ``torchrun``. On GPUs, use ``"nccl"`` in place of ``"gloo"``.
#
# * If the local loss is a sum and not a mean, leave ``samples`` out: the losses are added.
# * If a process has no data, pass ``samples=0`` there. It still takes part in every sum.
# * If the parameters are sharded by ``fully_shard``, pass those of :func:`funcdiff.module_function`: see
#   :ref:`sharded-parameters`.
