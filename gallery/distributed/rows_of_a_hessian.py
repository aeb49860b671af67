r"""
How do I compute a Hessian that does not fit on one process?
============================================================

A function of 1000 parameters has a Hessian with 1000 x 1000 entries. With 100 000 parameters it has ten thousand times
as many. At some size, one machine does not have enough memory. Then several machines can each compute some of the rows.
With two processes, the first one computes rows 0 to 499 of 1000, and the second one the others.

Each row is the derivative of one entry of the gradient. To get it, torch goes backward through the gradient, starting
from a unit vector. So process 0 starts from the first 500 unit vectors, process 1 from the others, and neither needs
anything from the other. Each process does half of the work and stores half of the matrix.

**Answer:** Call :func:`funcdiff.distributed.hessian` on every process. Each computes its part of the rows, in chunks
that stay within a budget of memory. The result is a ``DTensor`` (torch's distributed tensor): every process stores its
own rows.

.. code-block:: python

    import torch
    from funcdiff.distributed import hessian

    H = hessian(loss, chunk_size="auto", budget=2**30)(w)  # bytes for each process
    H.to_local()  # the rows of this process
    # In torch alone, what the first of two processes computes:
    gradient, backward = torch.func.vjp(torch.func.grad(loss), w)
    (rows,) = torch.func.vmap(backward)(torch.eye(len(w))[: len(w) // 2])
"""

# %%
# Use it
# ------
# First we import what both processes need.

import os
import tempfile

import torch
import torch.distributed as dist
from joblib import Parallel, delayed

import funcdiff as fd
from funcdiff import distributed

# %%
# We run this page on two processes of one machine. They communicate over gloo, torch's backend for CPUs. The function
# ``on_two_processes`` calls ``work`` in both processes and returns both results. You can also start this file with
# ``torchrun --nproc-per-node 2``. It then uses the two processes of torchrun.


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
# Our function is the loss of a logistic regression with 1000 weights. All processes have the same data.

torch.manual_seed(0)
n, samples = 1000, 400
X = torch.randn(samples, n, dtype=torch.float64) / n**0.5
labels = (X.sum(1) + 0.3 * torch.randn(samples, dtype=torch.float64) > 0).double()
w = torch.randn(n, dtype=torch.float64)


def loss(w):
    return torch.nn.functional.binary_cross_entropy_with_logits(X @ w, labels)


# %%
# Its Hessian has a million entries of 8 bytes. We allow each process only three quarters of these bytes.

budget = 0.75 * 8 * n**2
print(f"whole Hessian {8 * n**2:,} B, budget {budget:,.0f} B")

# %%
# One process cannot compute the Hessian within this budget. The result alone is too large, whatever the chunk size.

try:
    fd.hessian(loss, chunk_size="auto", budget=budget)(w)
except MemoryError as error:
    print("MemoryError:", error)

# %%
# Two processes can. Each one stores half of the rows. We print the shape of the whole Hessian, that of the rows of each
# process, and the peak (the largest memory in use).

from funcdiff.measure import count


def rows_of_hessian(w):
    recipe = distributed.hessian(loss, chunk_size="auto", budget=budget)
    rows = recipe(w)
    peak = count(recipe, w).peak_bytes
    return tuple(rows.shape), rows.placements, rows.to_local(), peak


results = on_two_processes(rows_of_hessian, w)
for shape, placements, rows, peak in results:
    print(f"of {shape}, {placements}: {tuple(rows.shape)}, peak {peak:,} B")
    assert peak <= budget

# %%
# Check it by hand
# ----------------
# The Hessian has a closed form, :math:`X^T D X / N`. Here :math:`p` are the predicted probabilities,
# :math:`D = \mathrm{diag}(p (1 - p))`, and :math:`N` is the number of samples. We stack the rows of both processes and
# compare with this matrix.

p = torch.sigmoid(X @ w)
closed_form = X.T @ ((p * (1 - p) / samples)[:, None] * X)
torch.testing.assert_close(torch.cat([rows for _, _, rows, _ in results]), closed_form)

# %%
# In torch alone, ``vjp`` of the gradient returns a function that makes one backward pass. :term:`vmap` calls it for
# many unit vectors at once. With the first 500 of them we get the rows of the first process.

gradient, backward = torch.func.vjp(torch.func.grad(loss), w)
units = torch.eye(n, dtype=torch.float64)[:500]
(first_rows,) = torch.func.vmap(backward)(units)
torch.testing.assert_close(first_rows, results[0][2])

# %%
# You can compute with a ``DTensor`` without collecting the matrix on one process. We compute two things. The first is
# the largest row sum of the absolute values, which is an upper bound for every eigenvalue. The second is a product with
# a vector. For this the vector must be a ``DTensor`` too, with a copy on every process (``Replicate``).

from torch.distributed.tensor import DTensor, Replicate


def bound_and_product(w):
    rows = distributed.hessian(loss)(w)
    bound = rows.abs().sum(1).max().full_tensor()
    v = DTensor.from_local(w, rows.device_mesh, [Replicate()])
    return bound, (rows @ v).full_tensor()


for bound, product in on_two_processes(bound_and_product, w):
    torch.testing.assert_close(bound, closed_form.abs().sum(1).max())
    torch.testing.assert_close(product, closed_form @ w)
largest = torch.linalg.eigvalsh(closed_form)[-1]
print(f"bound {bound:.4f}, largest eigenvalue {largest:.4f}")

# %%
# Count
# -----
# We count what one process does, for its own rows and for the whole Hessian.


def costs(w):
    recipe = distributed.hessian(loss)
    recipe(w)  # the first call compares the arguments of the processes
    return count({"rows of one process": recipe, "whole Hessian": fd.hessian(loss)}, w)


counted, _ = on_two_processes(costs, w)
counted

# %%
# Each process needs about half of the FLOPs (floating-point operations):

counted.claim("rows of one process", fewer_flops_than="whole Hessian", by=1.8)

# %%
# Its peak memory is lower, too:

counted.claim("rows of one process", smaller_peak_than="whole Hessian", by=1.5)

# %%
# How does this change with the size? We count the peak of one process for five numbers of parameters. The part of the
# Hessian that a process stores grows with the square of this number. Each process also needs memory to compute a chunk
# of 100 rows, which grows more slowly.

from funcdiff.plots import plot_curves


def peaks(size):
    w, data = torch.zeros(size).double(), torch.ones(samples, size).double()

    def loss(w):
        return torch.nn.functional.softplus(data @ w).mean()

    own = distributed.hessian(loss, chunk_size=100)
    own(w)  # the first call compares the arguments of the processes
    whole = fd.hessian(loss, chunk_size=100)
    return count(own, w).peak_bytes / 2**20, count(whole, w).peak_bytes / 2**20


def all_peaks(sizes):
    return [peaks(size) for size in sizes]


sizes = [250, 500, 1000, 1500, 2000]
own, whole = zip(*on_two_processes(all_peaks, sizes)[0], strict=True)
curves = {"rows of one process": (sizes, own), "whole Hessian": (sizes, whole)}
share = own[-1] / whole[-1]
title = f"{sizes[-1]} parameters: each of two processes needs {share:.0%} of the memory"
plot_curves(curves, xlabel="parameters", ylabel="peak in MiB", title=title)
assert own[-1] < 0.7 * whole[-1]

# %%
# The vertical distance between the two lines is what a process saves. It grows with the number of parameters. This is
# what each process needs of the memory for the whole Hessian:

for size, one, all_rows in zip(sizes, own, whole, strict=True):
    print(f"{size:5} parameters: {one / all_rows:.0%}")

# %%
# The first call compares the arguments of the processes. Later calls send nothing, because each process has all that it
# needs for its rows.

assert counted["rows of one process"].collectives == 0

# %%
# What goes wrong
# ---------------
# *You collect the whole matrix.* ``full_tensor()`` and the option ``gather=True`` copy all rows to every process. Each
# process then needs the memory of the whole matrix.


def gathered(w):
    recipe = distributed.hessian(loss, chunk_size="auto", budget=budget)
    rows = recipe(w)
    return count(rows.full_tensor)


gathering, _ = on_two_processes(gathered, w)
gathering

# %%
# *You combine a tensor and a* ``DTensor``. This raises an error. Convert the tensor to a ``DTensor`` as above, or
# compute with ``to_local()``.


def mixed(w):
    try:
        distributed.hessian(loss)(w) @ w
    except RuntimeError as error:
        return f"RuntimeError: {error}"
    return ""


message, _ = on_two_processes(mixed, w)
print(message)
assert "mixed" in message, "torch computes with both now: rewrite this section"

# %%
# *The processes pass different arguments.* Their rows would then belong to different points, and would not form a
# Hessian. The first call compares the shapes and values of the arguments and the code of the function, and raises an
# error.


def other_point(w):
    try:
        distributed.hessian(loss)(w + dist.get_rank())
    except ValueError as error:
        return str(error)


print(on_two_processes(other_point, w)[0])

# %%
# Takeaway
# --------
# Distribute the rows with :func:`funcdiff.distributed.hessian` or :func:`funcdiff.distributed.jacobian`, and give each
# process a budget. Do not gather the result.
#
# * If you need only eigenvalues or solutions of linear systems, use products instead: :doc:`right_product` distributes
#   the data, and no process stores a matrix.
# * If the first axis of each output has at least as many entries as there are processes, the outputs are distributed
#   instead of the rows. Each process then uses the recipe that :func:`funcdiff.hessian` chooses.
# * If there are many rows of data, :func:`funcdiff.distributed.batch_hessian` computes one Hessian for each.
