"""Costs without noise: what a function computes and holds, counted rather than timed."""

from collections.abc import Callable, Mapping
from typing import Any, overload

from funcdiff._torch.compiler import is_compiled
from funcdiff._torch.counter import Counter
from funcdiff.measure.costs import Cost, Costs
from funcdiff.measure.recording import recorded


@overload
def count(func: Callable[..., Any], /, *args: Any) -> Cost: ...


@overload
def count(func: Mapping[str, Callable[..., Any]], /, *args: Any) -> Costs: ...


def count(func: Callable[..., Any] | Mapping[str, Callable[..., Any]], /, *args: Any) -> Cost | Costs:
    """Count the FLOPs, the operations and the memory of a call. The counts are exact and involve no clock.

    On tensors of ``device="meta"`` nothing is computed and no memory is used. So you can count a call that would take
    minutes or not fit in memory. There, forward mode through sums and products with constants may show a few operations
    more than on real tensors, because torch uses them to infer shapes. FLOPs are the same.

    Inside a process group, what this process sends to others is counted too, by the formulas of a ring.

    Args:
        func: A function, or a mapping of name to function; called as ``func(*args)``.
        *args: The arguments.

    Returns:
        The cost of the function, or of each.

    Raises:
        ValueError: The function is compiled, and so hides its operations.

    >>> import torch
    >>> x, weight = torch.ones(100, 5, device="meta"), torch.ones(7, 5, device="meta")
    >>> cost = count(torch.nn.functional.linear, x, weight)
    >>> cost.flops == 2 * 100 * 5 * 7, cost.peak_bytes == 4 * 100 * 7
    (True, True)
    """
    return recorded(Costs(count_each(func, *args))) if isinstance(func, Mapping) else recorded(_count(func, *args))


def count_each(functions: Mapping[str, Callable[..., Any]], *args: Any) -> dict[str, Cost]:
    """Count each of several functions, without recording it."""
    return {name: _count(func, *args) for name, func in functions.items()}


def _count(func: Callable[..., Any], *args: Any) -> Cost:
    if is_compiled(func):
        raise ValueError("expected a function whose operations can be seen; count it before torch.compile")
    with Counter() as counter:
        func(*args)
    uncounted = tuple(sorted(counter.uncounted))
    sent = counter.collectives, counter.bytes_sent
    return Cost(counter.flops, counter.operations, counter.bytes_written, counter.peak, uncounted, *sent)
