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
    """Count the FLOPs, the operations and the peak memory of one call. The counts are exact; no time is measured.

    The peak is the largest amount of memory in use at one time. FLOPs are counted for matrix products and convolutions.
    With tensors on the device "meta", which have a shape and no values, nothing is computed.

    Example:
        A multiplication of a (100, 5) matrix by a (5, 7) matrix needs 2 * 100 * 5 * 7 = 7000 FLOPs.

        >>> import torch
        >>> from funcdiff.measure import count
        >>> x, weight = torch.ones(100, 5, device="meta"), torch.ones(7, 5, device="meta")
        >>> cost = count(torch.nn.functional.linear, x, weight)
        >>> cost.flops, cost.peak_bytes
        (7000, 2800)

        For a dictionary of functions, print the result to compare them.

        >>> from funcdiff import jacobian_forward, jacobian_reverse
        >>> weight, x = torch.empty(25, 5, device="meta"), torch.empty(5, device="meta")
        >>> def layer(x):
        ...     return torch.tanh(weight @ x)
        >>> print(count({"forward": jacobian_forward(layer), "reverse": jacobian_reverse(layer)}, x))
        function  matrix FLOPs  operations   written      peak
        --------  ------------  ----------  --------  --------
        forward     1.75 kFLOP          10  2.85 KiB  1.29 KiB
        reverse     6.50 kFLOP           6  5.59 KiB  5.49 KiB
        Exact counts of one call. A multiply-add counts as 2 FLOPs.

    Args:
        func: The function, or a dictionary from names to functions. It is called once as ``func(*args)``.
        *args: The arguments. Use tensors on ``device="meta"`` to count a call that takes too long or needs too much
            memory: torch then computes nothing and allocates nothing.

    Returns:
        A `Cost`, or `Costs` for a dictionary. Print it to see a table.

    Raises:
        ValueError: The function is compiled, so its operations cannot be seen. Count it before torch.compile.

    Method:
        On meta tensors, the FLOPs are the same as on real tensors. Forward mode through sums and products with
        constants may show a few operations more, because torch uses them to infer shapes. Inside a process group, what
        this process sends to others is counted too, by the formulas of a ring.
    """
    return recorded(Costs(count_each(func, *args))) if isinstance(func, Mapping) else recorded(_count(func, *args))


def count_each(functions: Mapping[str, Callable[..., Any]], *args: Any) -> dict[str, Cost]:
    """Count each of several functions, without recording it."""
    return {name: _count(func, *args) for name, func in functions.items()}


def _count(func: Callable[..., Any], *args: Any) -> Cost:
    if is_compiled(func):
        raise ValueError(
            "expected a function that is not compiled, because its operations cannot be seen. "
            "Count it before torch.compile"
        )
    with Counter() as counter:
        func(*args)
    uncounted = tuple(sorted(counter.uncounted))
    sent = counter.collectives, counter.bytes_sent
    return Cost(counter.flops, counter.operations, counter.bytes_written, counter.peak, uncounted, *sent)
