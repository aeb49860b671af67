"""Time one candidate: samples long enough for the clock, on a quiet interpreter, with the device waited for."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

# NOTE: on a busy machine the scheduler takes the core away every few milliseconds. A sample as short as this, begun
# just after the process has slept, mostly lies inside the slice it is then given, and still is thousands of times
# what the clock resolves. Ten times longer samples without the nap missed most true factors of 1.5 on a machine with
# more work than cores; `tests/benchmark_verdicts.py` shows what these find.
SHORTEST_SAMPLE = 2e-4  # seconds
NAP = 5e-5  # seconds

Call = Callable[[], Any]
clock = time.perf_counter


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


def timed(call: Call) -> tuple[float, Any]:
    """Call once; return the seconds it took and its result."""
    _wait_for_device()
    time.sleep(NAP)
    start = clock()
    result = call()
    _wait_for_device()
    return clock() - start, result


def sample(call: Call, calls: int) -> float:
    """Return the seconds a call takes, averaged over so many."""
    if calls > 1:
        call()  # the caches are cold from the other candidates

    def repeatedly() -> None:
        for _ in range(calls):
            call()

    return timed(repeatedly)[0] / calls


def calls_a_sample(call: Call, first: float, budget: float | None) -> tuple[int, float | None]:
    """Find how many calls make a sample long enough, warming up as it goes.

    Args:
        call: The candidate.
        first: Seconds of its first call.
        budget: Seconds that a call may take.

    Returns:
        The number of calls, and the seconds of a single call if both that and the first, which a stall of the machine
        or compiling may have met, exceed the budget, else None.
    """
    calls = 1
    while (duration := calls * sample(call, calls)) < SHORTEST_SAMPLE:
        wanted = math.ceil(calls * SHORTEST_SAMPLE / duration) if duration > 0 else math.inf
        calls = int(min(max(wanted, calls + 1), 10 * calls))
    over = budget is not None and min(first, duration / calls) > budget
    return calls, duration / calls if over else None


def interleaved(calls: Sequence[Call], counts: Sequence[int], orders: Sequence[Sequence[int]]) -> list[list[float]]:
    """Sample every candidate once a round, in that round's order; return each candidate's times."""
    times: list[list[float]] = [[] for _ in calls]
    for order in orders:
        for i in order:
            times[i].append(sample(calls[i], counts[i]))
    return times


def _wait_for_device() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
