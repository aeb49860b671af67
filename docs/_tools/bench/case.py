"""What a benchmark consists of: ways to one derivative, and the goals that ours are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Ways = dict[str, Callable[..., Any]]
PRODUCTS = "its matrix products alone"  # of the recipe that a case names: what no arrangement of the rest can save


@dataclass(frozen=True)
class Goal:
    """How many times less than the best of the others one of our recipes is to take; at_most: how many times theirs."""

    what: str
    ours: str
    others: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    quantity: Literal["time", "peak_bytes", "flops"] = "time"


@dataclass(frozen=True)
class Case:
    """Ways to one derivative: `ways` are timed on `args`; `counted`, on meta tensors, is every way that can be counted.

    Of `floor` the matrix products are timed beside it, unless its first call must be timed itself; `bare` names what is
    left without our code: these products, or a way by hand. What takes longer than the budget is cut off.
    """

    name: str
    ways: Ways
    args: tuple[Any, ...]
    floor: str
    counted: Ways = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    bare: str = PRODUCTS
    products: bool = True

    @property
    def meta(self) -> tuple[Any, ...]:
        """The arguments without their numbers."""
        return tuple(arg.to("meta") for arg in self.args)


def at_least(times: float, others: tuple[str, ...], *ours: str) -> tuple[Goal, ...]:
    """The same goal for a recipe and for the automatic one."""
    return tuple(Goal(f"against {others[0]}", name, others, at_least=times) for name in ours)


def compiled(ways: Mapping[str, Callable[..., Any]], *names: str) -> Ways:
    """The named ways under torch.compile."""
    return {f"torch.compile of {name}": torch.compile(ways[name]) for name in names}
