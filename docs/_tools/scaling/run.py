"""Measures products over 1, 2 and 4 processes of this machine and writes JSON: `nox -s scaling`."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import funcdiff as fd
from _tools.bench.run import written
from funcdiff import distributed
from funcdiff.distributed.processes import TAIL, Processes
from funcdiff.measure import count, environment
from funcdiff.problems import study_network

SIZES = 1, 2, 4
WEAK = 100, 1000  # rows of each process
STRONG = 1000  # rows in all
ROUNDS = 9


def study_c(rows: int) -> tuple[Callable[..., Any], torch.Tensor]:
    """The loss of study C's network, with its million parameters as one vector."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(rows, 5), torch.randn(rows, 25)
    predict, parameters = fd.module_function(study_network())
    vector, unravel = fd.ravel(parameters)
    return lambda w: (predict(unravel(w), inputs) - targets).square().mean(), vector


class Watch:
    """When the local part of a product was done: the sum begins there."""

    def __init__(self) -> None:
        """Begin to watch."""
        self.computed = 0.0
        inner = Processes.sum

        def watched(*args: Any) -> torch.Tensor:
            self.computed = time.perf_counter()
            return inner(*args)

        Processes.sum = watched  # type: ignore[method-assign]  # to note when the sum begins


def products(rows: int, group: Any, watch: Watch, rounds: int) -> list[dict[str, float]]:
    """Rounds of a product and of its sum alone: seconds to the end of the slowest local part, and to the end."""
    loss, w = study_c(rows)
    operator = distributed.hvp_operator(loss, w, samples=rows, group=group)
    v, buffer = torch.randn(len(w), generator=torch.Generator().manual_seed(1)), torch.zeros(len(w) + TAIL)
    found = []
    for _ in range(rounds + 2):
        dist.barrier(group)
        start = time.perf_counter()
        operator(v)
        end = time.perf_counter()
        slowest = torch.tensor([watch.computed - start, end - start], dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX, group)
        dist.barrier(group)
        start = time.perf_counter()
        dist.all_reduce(buffer, group=group)
        found.append({"local": slowest[0].item(), "product": slowest[1].item(), "sum": time.perf_counter() - start})
    return found[2:]


def member(rank: int, store: str, pipe: Any) -> None:
    """Measure in groups of 1, 2 and 4 processes, one group after the other in each round."""
    torch.set_num_threads(1)
    patience = datetime.timedelta(minutes=20)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=max(SIZES), timeout=patience)
    groups = {size: dist.new_group(list(range(size)), timeout=patience) for size in SIZES}
    watch = Watch()
    rounds: dict[tuple[str, int, int], list[dict[str, float]]] = {}
    cases = [("weak", rows, size) for rows in WEAK for size in SIZES]
    cases += [("strong", STRONG // size, size) for size in SIZES]
    for _ in range(3):
        for case in cases:
            _, rows, size = case
            if rank < size:
                rounds.setdefault(case, []).extend(products(rows, groups[size], watch, ROUNDS // 3))
            dist.barrier()
    if rank == 0:
        pipe.send([{"kind": k, "rows": r, "processes": s, "rounds": found} for (k, r, s), found in rounds.items()])
    os._exit(0)


def counted() -> dict[str, Any]:
    """What a product computes, by count: for each parameter and row, the same on any number of processes."""
    loss, w = study_c(100)
    return {"parameters": len(w), "flops": count(fd.hvp_operator(loss, w), w).flops / len(w) / 100}


def main(path: Path) -> None:
    """Start the processes, and keep what they found."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        args = f"{folder}/store", theirs
        processes = [context.Process(target=member, args=(rank, *args)) for rank in range(max(SIZES))]
        for process in processes:
            process.start()
        cases = ours.recv()
        for process in processes:
            process.join()
    for case in cases:
        case["overhead"] = statistics.median(r["product"] / r["local"] for r in case["rounds"])
    result = {
        "environment": environment().to_dict(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[1],
        **counted(),
        "cases": cases,
    }
    path.write_text(written(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
