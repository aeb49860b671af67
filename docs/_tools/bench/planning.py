"""What it costs to plan a derivative and to check its first result, over random networks.

`nox -s planning`: prints the dearest and fails if one takes longer than `LIMIT` and than `CALLS` calls of the network.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

import funcdiff as fd
from _tools.bench.prepared import unprepared
from _tools.bench.regret import CASES, Case, cases

LIMIT = 10e-3  # seconds
CALLS = 5  # of the network
TRIES, TRIES_AGAIN = 5, 21  # first calls, each with no plan kept; where they take too long, more of them
SEED = 2  # of the networks that the choice of recipes is judged on


class Planned(NamedTuple):
    """Processor seconds of planning with its check, and of a call of the network on the same rows."""

    case: Case
    planning: float
    call: float

    @property
    def excess(self) -> float:
        """Times the limit."""
        return self.planning / max(LIMIT, CALLS * self.call)


def taken(call: Callable[[Tensor], object], x: Tensor) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    call(x)
    return time.process_time() - start


def planned(case: Case, tries: int = TRIES) -> Planned:
    """How much longer a first call takes than the next one, whose memory is as cold: the median of some tries."""
    network, derivative = case.network(), unprepared(case)
    x = torch.randn(case.rows, case.inputs) if case.rows > 1 else torch.randn(case.inputs)
    extra = []
    for _ in range(tries):
        fd.clear_plans()
        extra.append(taken(derivative, x) - taken(derivative, x))
    found = Planned(case, median(extra), min(taken(network, x) for _ in range(tries)))
    return found if found.excess <= 1 or tries == TRIES_AGAIN else planned(case, TRIES_AGAIN)


def main(number: int = CASES) -> None:
    """Print what came out; an error where planning takes too long."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    found = [planned(case) for case, _ in zip(cases(SEED), range(number), strict=False)]
    found.sort(key=lambda one: -one.excess)
    above = [one for one in found if one.excess > 1]
    print(f"{len(found) - len(above)} of {len(found)} within {LIMIT * 1e3:.0f} ms or {CALLS} calls of the network")
    print(f"median {median(one.planning for one in found) * 1e3:.1f} ms")
    for one in found[:10]:
        print(f"{one.planning * 1e3:.1f} ms, {one.planning / one.call:.1f} calls", one.case)
    raise SystemExit(bool(above))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
