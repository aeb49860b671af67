r"""
How do I compute a Hessian that does not fit on one process?
============================================================

A Hessian of n parameters has n² entries, and a computation holds more than the result. Several machines, or several
processes with a limit each, have room for what one of them has not.

**Answer:** :func:`funcdiff.distributed.hessian` shares the rows out over the processes. Each differentiates its part of
the gradient, in chunks that stay within a budget. The result is a ``DTensor``, sharded over its rows, on which torch's
own operations work.

.. code-block:: python

    from funcdiff.distributed import hessian

    H = hessian(loss, chunk_size="auto", budget=budget)(w)  # bytes in each process
    H.to_local()  # the rows of this process
    H.abs().sum(1).max().full_tensor()  # from the rows of all
"""

# %%
# Use it
# ------
# We import what both processes need.

import os
import tempfile

import torch
import torch.distributed as dist
from joblib import Parallel, delayed

import funcdiff as fd
from funcdiff import distributed

# %%
# We start two processes that talk over gloo, torch's backend for processors. The function ``on_two_processes`` calls
# ``work`` in both and returns both results. If ``torchrun --nproc-per-node 2`` has started this file twice, those are
# the processes.


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
# The function is the loss of a logistic regression with a thousand weights. All processes have the same data.

torch.manual_seed(0)
n, samples = 1000, 400
X = torch.randn(samples, n, dtype=torch.float64) / n**0.5
labels = (X.sum(1) + 0.3 * torch.randn(samples, dtype=torch.float64) > 0).double()
w = torch.randn(n, dtype=torch.float64)


def loss(w):
    return torch.nn.functional.binary_cross_entropy_with_logits(X @ w, labels)


# %%
# Its Hessian has a million entries. We allow each process less than these entries take.

budget = 0.75 * 8 * n**2
print(f"whole Hessian {8 * n**2:,} B, budget {budget:,.0f} B")

# %%
# One process cannot compute it within this budget, whatever the chunk size.

try:
    fd.hessian(loss, chunk_size="auto", budget=budget)(w)
except MemoryError as error:
    print("MemoryError:", error)

# %%
# Two processes can. Each returns a few facts about its rows, and what it held at the most.

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
# The Hessian has a closed form: :math:`X^T D X / N` with :math:`D = \mathrm{diag}(p (1 - p))`, where :math:`p` are the
# predicted probabilities. The rows of the processes, one below the other, must be this matrix.

p = torch.sigmoid(X @ w)
closed_form = X.T @ ((p * (1 - p) / samples)[:, None] * X)
torch.testing.assert_close(torch.cat([rows for _, _, rows, _ in results]), closed_form)

# %%
# A ``DTensor`` computes with its parts. Here are the largest row sum, which bounds every eigenvalue, and a product with
# a vector. Neither gathers the matrix. The vector is made a ``DTensor`` that all processes have.

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
# We count what one process computes and holds, for its rows and for the whole Hessian.


def costs(w):
    recipe = distributed.hessian(loss)
    recipe(w)  # the first call compares the arguments of the processes
    return count({"rows of one process": recipe, "whole Hessian": fd.hessian(loss)}, w)


counted, _ = on_two_processes(costs, w)
counted

# %%
# Each process computes about half:

counted.claim("rows of one process", fewer_flops_than="whole Hessian", by=1.8)

# %%
# And it holds less at the most:

counted.claim("rows of one process", smaller_peak_than="whole Hessian", by=1.5)

# %%
# Once the processes have agreed on the arguments, nothing is sent: each has all that it needs for its rows.

assert counted["rows of one process"].collectives == 0

# %%
# What goes wrong
# ---------------
# *The whole matrix after all.* ``full_tensor()`` and the option ``gather=True`` bring all rows to every process. Their
# peak is that of the whole matrix again.


def gathered(w):
    recipe = distributed.hessian(loss, chunk_size="auto", budget=budget)
    rows = recipe(w)
    return count(rows.full_tensor)


gathering, _ = on_two_processes(gathered, w)
gathering

# %%
# *A tensor beside a DTensor.* An operation on both at once raises an error. Make the other one a ``DTensor`` too, as
# above, or compute with ``to_local()``.


def mixed(w):
    try:
        distributed.hessian(loss)(w) @ w
    except RuntimeError as error:
        return f"RuntimeError: {error}"
    return ""


told, _ = on_two_processes(mixed, w)
print(told)
assert "mixed" in told, "torch computes with both now: rewrite this section"

# %%
# *Other arguments on one process.* Rows at different points belong to no Hessian. The first call compares the shapes,
# the values and the code of the function on all processes.


def other_point(w):
    try:
        distributed.hessian(loss)(w + dist.get_rank())
    except ValueError as error:
        return str(error)


print(on_two_processes(other_point, w)[0])

# %%
# Takeaway
# --------
# Share the rows out with :func:`funcdiff.distributed.hessian`, or with :func:`funcdiff.distributed.jacobian`, with a
# budget for each process. Keep the result in its parts.
#
# * If you need eigenvalues or solutions only, use products instead: :doc:`right_product` shares the data, and no
#   process holds a matrix.
# * If the function has several outputs, they are shared out instead of the rows, and each process uses the recipe that
#   :func:`funcdiff.hessian` chooses.
# * If there are many rows of data, :func:`funcdiff.distributed.batch_hessian` computes one Hessian for each.
