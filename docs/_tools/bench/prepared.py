"""Is a prepared derivative ever slower than the automatic recipe it was made of, over random networks.

`nox -s prepared -- networks`: prints the slowest and fails if one is slower.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import geometric_mean, median
from typing import Any

import torch
from torch import Tensor

import funcdiff as fd
from _tools.bench.regret import Case, cases

NETWORKS = 200
LARGEST = 1e-2  # seconds of a call: of a longer one the machinery is no part to speak of
SECONDS = 0.3  # to time a network in
SECONDS_AGAIN = 2.0  # the same, where it seemed slower
Function = Callable[[Tensor], Tensor]
SLOWER = 0.97  # times as fast: below it is not noise


def unprepared(case: Case) -> Function:
    """The automatic recipe, for a row or a batch."""
    name = case.what.lower()
    recipe: Any = getattr(fd, name if case.rows == 1 else f"batch_{name}")
    return recipe(case.network())  # type: ignore[no-any-return]  # found by its name


def gain(
    function: Callable[[Tensor], Tensor], prepared: Callable[[Tensor], Tensor], x: Tensor, seconds: float
) -> float:
    """How many times faster the prepared one is: the median of the ratios of calls in turn, by processor time."""
    ratios = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(ratios) < 5:
        took = []
        for call in (function, prepared) if len(ratios) % 2 else (prepared, function):
            start = time.thread_time()
            call(x)
            took.append(time.thread_time() - start)
        ratios.append(took[0] / took[1] if len(ratios) % 2 else took[1] / took[0])
    return median(ratios)


def measured(number: int = NETWORKS, seed: int = 3) -> list[tuple[float, Case, float]]:
    """The gain of each network, and the seconds it took to prepare."""
    torch.manual_seed(seed)
    found: list[tuple[float, Case, float]] = []
    for case in cases(seed):
        if len(found) == number:
            break
        function = unprepared(case)
        x = torch.randn(case.rows, case.inputs) if case.rows > 1 else torch.randn(case.inputs)
        function(x)
        start = time.thread_time()
        function(x)
        if time.thread_time() - start > LARGEST:
            continue
        start = time.perf_counter()
        prepared = fd.prepare(function, x)
        took = time.perf_counter() - start
        times = gain(function, prepared, x, SECONDS)
        if times < 1:
            times = gain(function, prepared, x, SECONDS_AGAIN)
        found.append((times, case, took))
        if times < 1:
            print(f"{times:.2f}", case, flush=True)
    return found


def main() -> None:
    """Print what came out; an error where a prepared one is slower."""
    torch.set_num_threads(1)
    found = sorted(measured(int(sys.argv[1]) if sys.argv[1:] else NETWORKS), key=lambda one: one[0])
    gains = [times for times, *_ in found]
    took = [seconds for *_, seconds in found]
    print(
        f"{len(found)} networks: {gains[0]:.2f} to {gains[-1]:.1f} times faster, on average {geometric_mean(gains):.2f}"
    )
    print(f"seconds to prepare: median {median(took):.2f}, at most {max(took):.2f}")
    for times, case, _ in found[:5]:
        print(f"{times:.2f}", case)
    raise SystemExit(gains[0] < SLOWER)


if __name__ == "__main__":
    main()
