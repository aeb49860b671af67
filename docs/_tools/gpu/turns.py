"""Where the ranking on a GPU differs from that on its processor: maps of the winner, and sizes that grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

import funcdiff as fd
from _tools.gpu.studies import numbers
from funcdiff.measure import Comparison, compare
from funcdiff.problems import study_network

SIDES = (1, 8, 64, 512, 4096)
ROWS = (1, 10, 100, 1000, 10_000)
WIDTHS = (10, 30, 100, 300, 1000, 3000)
QUICK = {"rounds": 8, "budget": 0.2, "equal": False}  # sizes, not verdicts: the studies' rows have more rounds


def winner_map(device: str, threads: int) -> Iterator[dict[str, Any]]:
    """Forward against reverse mode on a hidden layer of 256, for each number of inputs and outputs."""
    for inputs in SIDES:
        for outputs in SIDES:
            first, second, x = numbers(device, (256, inputs), (outputs, 256), (inputs,))

            def func(x: Tensor, first: Tensor = first, second: Tensor = second) -> Tensor:
                return second @ torch.tanh(first @ x)

            ways = {"jacobian_forward": fd.jacobian_forward(func), "jacobian_reverse": fd.jacobian_reverse(func)}
            yield {"inputs": inputs, "outputs": outputs, **medians(compare(ways, x, threads=threads, **QUICK))}


def growing(device: str, threads: int) -> Iterator[dict[str, Any]]:
    """Study C's network with more rows, and with wider layers: an evaluation, its Jacobian, its Hessian."""
    for rows in ROWS:
        yield {"rows": rows, "width": 1000, **of_size(device, threads, rows, 1000)}
    for width in WIDTHS:
        yield {"rows": 100, "width": width, **of_size(device, threads, 100, width)}


def of_size(device: str, threads: int, rows: int, width: int) -> dict[str, Any]:
    """The medians at one size."""
    network = study_network((5, width, width, 25)).to(device).requires_grad_(False)
    (batch,) = numbers(device, (rows, 5))
    ways: dict[str, Callable[..., Any]] = {
        "evaluation": network,
        "jacobian_forward": vmap(fd.jacobian_forward(network)),
        "jacobian_reverse": vmap(fd.jacobian_reverse(network)),
    }
    if rows * width <= 1_000_000:  # the Hessian's tensors grow with 21 times that
        ways["hessian_taylor"] = vmap(fd.hessian_taylor(network))
    return medians(compare(ways, batch, threads=threads, **QUICK))


def medians(times: Comparison) -> dict[str, Any]:
    """Each way's median, in seconds, and the interval of the ratio to the fastest."""
    best = times.fastest
    ratios = {name: times.ratio(name, best).to_dict() for name in times}
    return {"fastest": best, "medians": {name: times[name].median for name in times}, "ratios": ratios}
