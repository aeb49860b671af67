"""Random functions: some operations in a row, or two branches joined, of constants that every precision has exactly."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fuzz import elementwise, own, structured

GROUPS = {  # how often one of them is drawn
    "smooth": (6, elementwise.SMOOTH),
    "kinked": (2, elementwise.KINKED),
    "reductions": (3, elementwise.REDUCTIONS),
    "losses": (2, elementwise.LOSSES),
    "products": (3, structured.PRODUCTS),
    "layers": (4, structured.LAYERS),
    "indices": (3, structured.INDICES),
    "matrices": (3, structured.MATRICES),
    "right": (1, own.RIGHT),
    "constant": (0.5, own.CONSTANT),
    "defined": (0.2, own.DEFINED),
    "faulty": (0.2, own.FAULTY),
    "unsaid": (0.1, own.UNSAID),
}
OPERATIONS = {name: operation for _, group in GROUPS.values() for name, operation in group.items()}


class Constants:
    """The numbers of one operation: drawn at its first call, the same at all others."""

    def __init__(self, seed: int) -> None:
        self.seed, self.kept = seed, list[Tensor]()

    def of(self, x: Tensor) -> Callable[..., Tensor]:
        """Draws for one call, in the precision and the place of `x`."""
        position = itertools.count()

        def constant(*shape: int) -> Tensor:
            k = next(position)
            if k == len(self.kept):
                generator = torch.Generator().manual_seed(self.seed + k)
                numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
                self.kept.append(numbers.bfloat16().double())  # which bfloat16 and float32 have as well
            return self.kept[k].to(x.device, x.dtype)

        return constant


@dataclass
class Step:
    """An operation, and a power of two by which its result is divided."""

    name: str
    constants: Constants
    scale: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return OPERATIONS[self.name](x, self.constants.of(x)) / self.scale


@dataclass
class Random:
    """A function of a vector: steps, a second branch for a product or a sum, and the outputs asked for."""

    steps: list[Step]
    branch: list[Step]
    outputs: int  # none for a number
    last: Constants
    names: list[str] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for step in self.steps:
            y = step(y)
        c = self.last.of(x)
        y = y.reshape(-1)
        if self.branch:
            z = x
            for step in self.branch:
                z = step(z)
            y = torch.cat([y * (1 + z.reshape(-1).sin().mean()), z.reshape(-1)])
        if not self.outputs:
            return (c(len(y)) * y + (y / 2).sin()).sum()
        return c(self.outputs, len(y)) @ y / len(y) ** 0.5

    def of(self, group: str) -> bool:
        """Whether an operation of this group is in it."""
        return any(name in GROUPS[group][1] for name in self.names)


def drawn(seed: int) -> tuple[Random, Tensor]:
    """The function of this seed, and points that lie apart; their numbers have few digits."""
    generator = random.Random(seed)
    for attempt in itertools.count():
        func = _draw(generator, 1000 * (1_000 * seed + attempt))
        size = generator.randint(1, 4)
        numbers = torch.Generator().manual_seed(seed + attempt)
        points = torch.randn(2, size, generator=numbers, dtype=torch.float64).bfloat16().double()
        points = torch.where(points.frexp().mantissa.abs() == 0.5, points * (1 + 2**-7), points)  # not 1: a kink may be
        if _settle(func, points):
            return func, points
    raise AssertionError


def _draw(generator: random.Random, seed: int) -> Random:
    weights = [weight for weight, _ in GROUPS.values()]

    def steps(count: int) -> list[Step]:
        groups = generator.choices(list(GROUPS.values()), weights, k=count)
        return [Step(generator.choice(list(group)), Constants(generator.randrange(2**40))) for _, group in groups]

    func = Random(
        steps(generator.randint(1, 4)),
        steps(generator.randint(1, 2)) if generator.random() < 0.3 else [],
        generator.choice([0, 0, 1, 2, 3]),
        Constants(seed),
    )
    func.names = [step.name for step in (*func.steps, *func.branch)]
    return func


def _settle(func: Random, points: Tensor) -> bool:
    """Divide what an operation makes large, and see whether the function is finite and moves with its input."""
    try:
        for steps in (func.steps, func.branch):
            both = list(points)
            for step in steps:
                both = [step(y) for y in both]
                size = max(float(y.detach().abs().max()) for y in both)
                if not 0 < size < 1e9:
                    return False
                while size > 4:
                    step.scale, size, both = 2 * step.scale, size / 2, [y / 2 for y in both]
        values = [func(x.clone().requires_grad_()) for x in points]
    except (RuntimeError, IndexError, ValueError):  # the shape that came does not fit
        return False
    return all(y.isfinite().all() and y.requires_grad for y in values)
