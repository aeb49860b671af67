"""Time one candidate: samples long enough for the clock, on a quiet interpreter, with the device waited for."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

# NOTE: on a busy machine the scheduler takes the core away every few milliseconds. A sample as short as this, begun
# just after the process has slept, mostly lies inside the slice it is then given, and still is thousands of times
# what the clock resolves. Ten times longer samples without the nap missed most true factors of 1.5 on a machine with
# more work than cores; `tests/benchmark_verdicts.py` shows what these find.
SHORTEST_SAMPLE = 2e-4  # seconds
NAP = 5e-5  # seconds
# NOTE: the other candidates, and the nap, leave the caches cold, which can double the time of a call of 0.2 ms. A call
# shorter than this is made once more between the nap and the clock's start; a longer one does not feel it, so that two
# equals on either side of the limit stay equal.
FELT_COLD = 1e-2  # seconds
STALL = 5e-2  # seconds that the scheduler may take a core away

Call = Callable[[], Any]
clock = time.perf_counter


class Sampling(NamedTuple):
    """How a candidate is sampled: so many calls, after one that warms up or none; or once, in seconds over a budget."""

    calls: int
    warm: bool
    over: float | None


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Compute with so many threads and without garbage collection; restore both."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


def timed(call: Call, before: Call | None = None) -> tuple[float, Any]:
    """Call once, right after `before`; return the seconds it took and its result."""
    _wait_for_device()
    time.sleep(NAP)
    if before is not None:
        before()
        _wait_for_device()
    start = clock()
    result = call()
    _wait_for_device()
    return clock() - start, result


def sample(call: Call, calls: int, *, warm: bool) -> float:
    """Return the seconds a call takes, averaged over so many."""

    def repeatedly() -> None:
        for _ in range(calls):
            call()

    return timed(repeatedly, call if warm else None)[0] / calls


def least(call: Call, calls: int) -> float:
    """Return the seconds a call takes: the least of three samples, if they are short, as a stall may meet one."""
    once = sample(call, calls, warm=calls > 1)
    if calls * once > STALL:
        return once
    return min(once, *(sample(call, calls, warm=once < FELT_COLD) for _ in range(2)))


def settled(call: Call, first: float, budget: float | None) -> Sampling:
    """Find how many calls make a sample long enough, warming up as it goes.

    Args:
        call: The candidate.
        first: Seconds of its first call.
        budget: Seconds that a call may take.

    Returns:
        The sampling; it is over the budget if both this call and the first are, one of which a stall of the machine or
        compiling may have met.
    """
    calls = 1
    while (duration := calls * least(call, calls)) < SHORTEST_SAMPLE:
        wanted = math.ceil(calls * SHORTEST_SAMPLE / duration) if duration > 0 else math.inf
        calls = int(min(max(wanted, calls + 1), 10 * calls))
    each = duration / calls
    over = budget is not None and min(first, each) > budget
    return Sampling(calls, each < FELT_COLD, each if over else None)


def interleaved(
    calls: Sequence[Call], samplings: Sequence[Sampling], orders: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Sample every candidate once a round, in that round's order; return each candidate's times."""
    times: list[list[float]] = [[] for _ in calls]
    for order in orders:
        for i in order:
            times[i].append(sample(calls[i], samplings[i].calls, warm=samplings[i].warm))
    return times


def _wait_for_device() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
