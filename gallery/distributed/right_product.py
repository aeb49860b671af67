r"""
My data are on several machines: which product is the right one?
================================================================

In data-parallel training, each process has a part of the data, its share. Suppose process 0 has 350 samples and process
1 has 150, and you want the Hessian-vector product for the mean loss over all 500. Each process can compute the product
for its own share. The product you want is their weighted mean:

.. math::

    Hv = \tfrac{350}{500}\, H_0 v + \tfrac{150}{500}\, H_1 v.

By hand, each process multiplies its own product by its weight, here 350/500 or 150/500. Then
``torch.distributed.all_reduce`` adds both. ``DistributedDataParallel`` does not compute this mean. It averages
gradients in ``backward()`` only. A product through it raises no error, but each process gets the product for its own
share.

**Answer:** On each process, call :func:`funcdiff.distributed.hvp_operator` with the loss of its share. As ``samples``,
pass the number of samples in the share. Use the network itself, without the ``DistributedDataParallel`` wrapper.

.. code-block:: python

    from torch.nn.functional import cross_entropy
    from funcdiff import distributed, module_function, ravel

    predict, parameters = module_function(network)  # not the wrapper
    w, unravel = ravel(parameters)  # all parameters as one vector
    loss = lambda w: cross_entropy(predict(unravel(w), pixels), labels)  # of its share
    product = distributed.hvp_operator(loss, w, samples=len(pixels))
    product(v)  # for the mean loss over all samples, on every process
"""

# %%
# Use it
# ------
# First we import what both processes need.

import os
import tempfile

import numpy as np
import torch
import torch.distributed as dist
from joblib import Parallel, delayed
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from funcdiff import distributed, hessian, hvp, module_function, ravel

# %%
# This page runs on two processes of one machine. They communicate over gloo, torch's backend for CPUs. The function
# ``on_two_processes`` calls ``work`` in both and returns both results. ``torchrun --nproc-per-node 2`` works as well.


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
# Before we divide the data, we train a small classifier of handwritten digits for a few steps.

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
# Process 0 gets the first 350 images, and process 1 the other 150. ``objective`` returns the loss as a function of one
# vector of all parameters, and this vector.

shares = [slice(0, 350), slice(350, 500)]


def objective(network, pixels, labels):
    predict, parameters = module_function(network)
    w, unravel = ravel(parameters)

    def loss(w):
        return cross_entropy(predict(unravel(w), pixels), labels)

    return loss, w


def own_objective(network):
    own = shares[dist.get_rank()]
    loss, w = objective(network, pixels[own], labels[own])
    return loss, w, len(pixels[own])


# %%
# Now we compute eigenvalues of the Hessian from its products. SciPy's ``eigsh`` needs an operator, and we have a
# function, so we put it into a ``LinearOperator``. ``which="BE"`` asks for the smallest and the largest eigenvalues.
# The first vector, ``v0``, is the same on both processes, so both need the same products in the same order.


def both_ends(product, n):
    def matvec(v):
        return product(torch.tensor(v).reshape(n)).numpy()

    operator = LinearOperator((n, n), matvec=matvec, dtype=np.float64)
    start = {"v0": np.ones(n), "ncv": 60, "tol": 1e-9}
    return np.sort(eigsh(operator, k=12, which="BE", **start)[0])


def spectrum(network):
    loss, w, count = own_objective(network)
    return both_ends(distributed.hvp_operator(loss, w, samples=count), len(w))


first, second = on_two_processes(spectrum, network)
print("smallest:", first[:3].round(4))
print("largest: ", first[-3:].round(4))
assert (first == second).all()

# %%
# Each product is the same to the last bit on both processes. So both find exactly the same eigenvalues.
#
# Check it by hand
# ----------------
# One process with all 500 images can compute the whole Hessian of this small network. Its eigenvalues must be equal.

whole_loss, w = objective(network, pixels, labels)
everything = torch.linalg.eigvalsh(hessian(whole_loss, chunk_size=64)(w)).numpy()
np.testing.assert_allclose(first, np.r_[everything[:6], everything[-6:]], rtol=1e-6)

# %%
# We also compute the weighted mean of the two products by hand. It equals the product for all data and of each process.

v = torch.linspace(-1, 1, len(w), dtype=torch.float64)
expected = hvp(whole_loss, (w,), (v,))
by_hand = 0
for own in shares:
    own_loss, _ = objective(network, pixels[own], labels[own])
    by_hand += len(pixels[own]) / len(pixels) * hvp(own_loss, (w,), (v,))
torch.testing.assert_close(by_hand, expected)


def one_product(network):
    loss, w, count = own_objective(network)
    return distributed.hvp_operator(loss, w, samples=count)(v)


for found in on_two_processes(one_product, network):
    torch.testing.assert_close(found, expected)

# %%
# Count
# -----
# How much does a process send for one product? :func:`funcdiff.measure.count` counts it. We compare the product over
# both processes with the product for one share.

from funcdiff import hvp_operator as local_operator
from funcdiff.measure import count


def costs(network):
    loss, w, n = own_objective(network)
    over_both = distributed.hvp_operator(loss, w, samples=n)
    local = local_operator(loss, w)
    return count({"local": local, "over both processes": over_both}, v)


counted, _ = on_two_processes(costs, network)
counted

# %%
# One product sends one vector, in one call, and computes nothing more than the local product. The vector has :math:`n`
# numbers, one for each parameter. With it go 33 more, by which all processes learn when one of them fails. Over
# :math:`P` processes in a ring, each sends :math:`2 (P - 1) / P` times these bytes. For two processes this factor is 1.

sent = counted["over both processes"]
assert sent.collectives == 1
assert sent.bytes_sent == 8 * (len(w) + 33)
assert sent.flops == counted["local"].flops

# %%
# How long this takes depends on the network between the machines: see :doc:`/explanation/scaling`.
#
# What goes wrong
# ---------------
# *You compute products through the wrapper.* We write a Hessian-vector product in the usual way, with two calls of
# :func:`torch.autograd.grad`. The network is wrapped in ``DistributedDataParallel``, which takes part in ``backward()``
# but not in :func:`torch.autograd.grad`.

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
# No error was raised, but the two results differ. Each process has the product for its own share.

for found, own in zip(silent, shares, strict=True):
    own_loss, _ = objective(network, pixels[own], labels[own])
    torch.testing.assert_close(found, hvp(own_loss, (w,), (v,)))
    gap = (found - expected).norm() / expected.norm()
    print(f"relative error {gap:.3f}")
    assert gap > 0.01, "DDP averages second derivatives now: rewrite this section"

# %%
# What happens to eigenvalues? The figure shows the six smallest and the six largest: the right ones, and those that
# each process would find from its own products.

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
# The curves separate at the right end, where the largest eigenvalues are. To protect you, the recipes raise an error
# for a wrapped module, even inside a function.


def refused(network):
    wrapped = DistributedDataParallel(network)
    try:
        module_function(wrapped)
    except ValueError as error:
        return str(error)


print(on_two_processes(refused, network)[0])

# %%
# *The processes pass different vectors.* This happens if you draw a random vector without a common seed. The sum is
# then no product with any vector. The operator raises an error on all processes, and names those that differ.


def own_vector(network):
    loss, w, count = own_objective(network)
    product = distributed.hvp_operator(loss, w, samples=count)
    try:
        product(v * (1 + dist.get_rank()))
    except ValueError as error:
        return str(error)


print(on_two_processes(own_vector, network)[0])

# %%
# Takeaway
# --------
# On each process, write the loss of its own share without a wrapper. :func:`funcdiff.distributed.hvp_operator` computes
# the weighted mean. Start the processes with ``torchrun``. On GPUs, use ``"nccl"`` in place of ``"gloo"``.
#
# * If the local loss is a sum and not a mean, leave ``samples`` out: the losses are added.
# * If a process has no data, pass ``samples=0`` there. It must still call each product.
# * If ``fully_shard`` shards the parameters, pass those of ``module_function``: see :ref:`sharded-parameters`.
