"""Chunks for a budget of bytes: counted on calls of which only three chunks are run."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from funcdiff._automatic.costs import FORMULAS
from funcdiff._automatic.planning import Candidate, Plan, order
from funcdiff._calling.directions import CountedChunk
from funcdiff._calling.options import check_chunk_size
from funcdiff._safety.guard import has_graph
from funcdiff._torch.counter import Counter
from funcdiff._torch.messages import RefusedError, cannot, reason
from funcdiff._torch.transforms import plain_allowed, undrawn

NO_COUNTING_INSIDE = (
    'chunk_size="auto" runs a few calls to count their memory, which is not possible inside vmap, grad, jvp or '
    "torch.compile. Pass a number there. explain(...), called outside, shows which"
)


def check_budget(chunk_size: Any, budget: float | None) -> None:
    """A chunk is a number, or automatic, and then goes with a budget."""
    if chunk_size != "auto" and budget is None:
        check_chunk_size(chunk_size)
    elif budget is None:
        raise ValueError(
            'expected a budget in bytes with chunk_size="auto", got none. Pass budget=2**30 for 1 GiB, or the free '
            "memory of the GPU, torch.cuda.mem_get_info()[0]"
        )
    elif chunk_size != "auto":
        raise ValueError(f'expected chunk_size="auto" with a budget, got {chunk_size!r}')
    elif isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise TypeError(f"expected budget to be a number of bytes, got {budget!r}")
    elif not budget > 0:
        raise ValueError(f"expected budget to be a positive number of bytes, got {budget}")


def plan_within(budget: float, plan: Plan, item: int, call: Callable[[str, int], Any]) -> Plan:
    """The plan with a chunk for each recipe that can be fastest; `call` differentiates by a recipe in such chunks.

    Raises:
        MemoryError: The result, of numbers of `item` bytes, is over the budget, or every recipe, whatever the chunk.
    """
    degree = max(FORMULAS[c.name].degree for c in plan.candidates if c.name in FORMULAS)
    size = item * plan.sketch.outputs * plan.sketch.inputs**degree
    if size > budget:
        raise MemoryError(f"the result needs {size:,} bytes, and the budget is {budget:,.0f} bytes. {_SMALLER}")
    candidates: list[Candidate] = []
    best = float("inf")
    for candidate in plan.candidates:
        if not candidate.obstacle and order(candidate)[1] >= best:
            candidate = dataclasses.replace(candidate, obstacle="slower even if all fits")
        elif not candidate.obstacle:
            candidate = _fitted(candidate, plan, budget, call)
            blocked, seconds = order(candidate)
            best = best if blocked else min(best, seconds)
        candidates.append(candidate)
    candidates.sort(key=order)
    if candidates[0].obstacle:
        told = "; ".join(f"{candidate.name}: {candidate.obstacle}" for candidate in candidates)
        raise MemoryError(f"no method fits into the budget of {budget:,.0f} bytes ({told}). {_remedy(told)}")
    return Plan(plan.sketch, tuple(candidates))


def largest_chunk(total: int, budget: float, power: int, call: Callable[[int], Any]) -> tuple[int, Counter]:
    """The largest even chunk of `total` whose counted peak is within the budget, and its count.

    NOTE [growing chunks]. What a chunk adds to the peak grows at most with a power of its size: 1, or 2 where two
    Jacobians are taken in chunks. So each count says how far the next chunk may go with the budget kept, also while
    counting. Peaks are convex in the chunk: where two of them point above the budget, the third is there.

    NOTE [left behind]. Where the results carry a graph, each chunk leaves a part of it, so that larger chunks need less
    in all, up to a point. Counting runs three of them, and keeps a budget that all would not.

    Raises:
        MemoryError: No chunk is within the budget.
    """
    even = sorted({-(-total // parts) for parts in range(1, total + 1)})
    chunk, count, slope = 1, _counted(1, call), float("inf")

    def proven(peak: int) -> int:
        """The chunk that keeps the budget if what it adds grows as it may."""
        return int(chunk * (max(0, budget - count.fixed) / max(peak - count.fixed, 1)) ** (1 / power))

    while budget < count.peak > count.reached:
        larger = even[max(bisect_right(even, min(2 * chunk, proven(count.reached))), 1) - 1]
        if larger <= chunk or (next_count := _counted(larger, call)).peak >= count.peak:
            break
        slope = (next_count.peak - count.peak) / (larger - chunk)
        chunk, count = larger, next_count
    if count.peak > budget:
        needed = "even one at a time needs" if chunk == 1 else f"fewer than {chunk} at a time need more, and these need"
        graph = _GRAPH if count.with_graph else ""
        needed += f" {count.peak:,} bytes{graph}, and the budget is {budget:,.0f}"
        raise MemoryError(f"{needed}. {_remedy(needed)}")
    while chunk < total:
        safe = proven(count.peak)
        larger = even[max(bisect_right(even, safe) - 1, bisect_right(even, chunk))]
        if larger > safe and count.peak + slope * (larger - chunk) > budget:
            break
        next_count = _counted(larger, call)
        if next_count.peak > budget:
            break
        slope = (next_count.peak - count.peak) / (larger - chunk)
        chunk, count = larger, next_count
    return chunk, count


def peak_of(chunk: int, call: Callable[[int], Any]) -> int:
    """The bytes that a call in such chunks needs, counted as the budget was."""
    return _counted(chunk, call).peak


_SMALLER = "Use products (hvp, jvp), a diagonal or a Laplacian instead of the matrix, or fewer rows of a batch"
_GRAPH = " with the graph for a later backward pass"


def _remedy(told: str) -> str:
    """What to do first where a graph takes the memory, and what helps anyway."""
    if _GRAPH not in told:
        return _SMALLER
    return (
        "A parameter or an argument requires grad, so the result keeps what was computed. If you do not backpropagate "
        "through the result, call module.requires_grad_(False) first, or compute it under torch.no_grad(). "
        + _SMALLER.replace("Use", "Or use")
    )


def _fitted(candidate: Candidate, plan: Plan, budget: float, call: Callable[[str, int], Any]) -> Candidate:
    name = candidate.name
    formula = FORMULAS.get(name)
    total = formula.together(plan.sketch) if formula else 1
    power = 1 if name.startswith("jacobian") or "taylor" in name else 2
    try:
        chunk, count = largest_chunk(total, budget, power, lambda size: call(name, size))
    except MemoryError as error:
        return dataclasses.replace(candidate, obstacle=str(error).partition(". ")[0])
    except Exception as error:  # raised again unless torch cannot do it in this way
        if not cannot(error):
            raise
        return dataclasses.replace(candidate, obstacle=reason(error))
    cost = formula.in_parts(plan.sketch, -(-total // chunk), count.flops) if formula else None
    return dataclasses.replace(candidate, cost=cost, chunk=chunk, peak=count.peak)


def _counted(chunk: int, call: Callable[[int], Any]) -> Counter:
    if not plain_allowed():
        raise RefusedError(NO_COUNTING_INSIDE)
    with undrawn(), Counter() as counter:
        size = CountedChunk(chunk)
        size.counter = counter
        result = call(size)
    counter.with_graph = has_graph(result)
    return counter
