"""The fuzz: `python -m fuzz.run SEED NUMBER` differentiates so many random functions and says what fell short.

Each function is differentiated alone, in a batch and under vmap of two different rows, in one of three precisions. A
line that begins with a seed can be repeated: `python -m fuzz.run SEED 1`; `every` after it takes every derivative, and
`cuda` differentiates on the GPU and judges by the processor's numbers.
"""

from __future__ import annotations

import logging
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

import funcdiff as fd
from funcdiff._automatic.candidates import PRODUCTS, RECIPES
from funcdiff._automatic.planning import Plan
from fuzz.functions import OPERATIONS, Random, drawn
from fuzz.judge import Exact, Reference, gap, of_kind

Derivative = Callable[[Any, Tensor], Tensor]


def products(product: Callable[..., Any], func: Any, x: Tensor) -> Tensor:
    """The Hessian by a product for each axis."""
    return torch.stack([product(func, (x,), (axis,)) for axis in torch.eye(len(x)).to(x)], -1)


def plainly(order: int, func: Any, x: Tensor) -> Tensor:
    """Plain autograd by loops."""
    reference = Reference(func, x)
    found = reference.jacobian if order == 1 else reference.hessian
    assert found is not None, "torch has no such derivative"
    return found


RECIPE: dict[str, Derivative] = {
    "jacobian": lambda func, x: fd.jacobian(func)(x),
    "hessian": lambda func, x: fd.hessian(func)(x),
    "diagonal": lambda func, x: fd.hessian_diagonal(func)(x),
    "laplacian": lambda func, x: fd.laplacian(func)(x),
    "product": partial(products, fd.hvp),
}
BATCH: dict[str, Derivative] = {
    "jacobian": lambda func, rows: fd.batch_jacobian(func)(rows),
    "hessian": lambda func, rows: fd.batch_hessian(func)(rows),
}
TORCH: dict[int, list[Derivative]] = {  # by order: what torch itself has
    1: [partial(plainly, 1), *(lambda func, x, o=o: o(func)(x) for o in (jacrev, jacfwd))],
    2: [
        partial(plainly, 2),
        *(lambda func, x, o=o, i=i: o(i(func))(x) for o in (jacrev, jacfwd) for i in (jacrev, jacfwd)),
    ],
}
ROUNDING = {torch.float64: 1e-6, torch.float32: 5e-3, torch.bfloat16: 0.3}
_ELSEWHERE = 1.0, 0.5, 1.5, -1.0, -0.5  # times the rows
GRAVE = ("wrong", "refused", "accused")


@dataclass(frozen=True)
class Finding:
    """What became of one derivative: right, wrong, refused, refused by right, accused, or unclear."""

    seed: int
    call: str
    names: tuple[str, ...]
    outcome: str = "right"
    detail: str = ""

    def __str__(self) -> str:
        """A line to repeat it by."""
        return f"{self.seed} {self.outcome}: {self.call} of {' > '.join(self.names)}: {self.detail}"


@dataclass(frozen=True)
class Call:
    """A derivative of a function: alone, in a batch or under vmap."""

    func: Random
    rows: Tensor
    setting: str
    kind: str
    device: str = "cpu"

    @property
    def order(self) -> int:
        return 1 if self.kind == "jacobian" else 2

    @property
    def unsure(self) -> bool:
        """Whether the function itself is at fault, here or where a straight-through function contradicts itself."""
        if self.func.of("faulty") or not (self.func.of("defined") and self.order == 2):
            return self.func.of("faulty")
        points = [row.double() * factor for row in self.rows for factor in _ELSEWHERE]
        return any(Reference(self.func, x, True).exact(self.kind) is None for x in points)

    def by(self, how: Derivative) -> Tensor:
        """For each row; alone, for the first."""
        rows = self.rows.to(self.device)
        with self.place():
            if self.setting == "vmap":
                return vmap(partial(how, self.func))(rows).cpu()
            return torch.stack([how(self.func, row) for row in (rows[:1] if self.setting == "alone" else rows)]).cpu()

    def place(self) -> Any:
        """Where the function makes its tensors."""
        return nullcontext() if self.device == "cpu" else torch.device(self.device)

    def automatic(self) -> Tensor:
        """By the name without a mode."""
        if self.setting == "batch":
            with self.place():
                return BATCH[self.kind](self.func, self.rows.to(self.device)).cpu()
        return self.by(RECIPE[self.kind])

    def candidate(self, name: str) -> Tensor:
        """By one of the recipes among which the automatic one chooses."""
        if name in PRODUCTS:
            return self.by(partial(products, PRODUCTS[name]))
        return self.by(lambda func, x: RECIPES[self.kind][name](func)(x))

    def near(self, found: Tensor, want: Tensor, allowed: float, scale: float) -> bool:
        return gap(found.detach(), want, scale) <= allowed

    def possible(self, want: Tensor, allowed: float, scale: float) -> bool:
        """Whether torch itself has the derivative, by whatever composition."""
        for way in TORCH[self.order]:
            try:
                found = of_kind(self.kind, self.by(way))
            except Exception:
                continue
            if self.near(found, want, allowed, scale):
                return True
        return False


def judged(seed: int, *, every: bool = False, device: str = "cpu") -> Iterator[Finding]:
    """The findings on the function of a seed: on some derivatives of it, or on every one."""
    func, points = drawn(seed)
    draw = random.Random(seed)
    dtype = draw.choices([torch.float64, torch.float32, torch.bfloat16], [6, 3, 2])[0]
    own = [Reference(func, x.to(dtype)) for x in points]
    if any(reference.by_plain_autograd("jacobian") is None for reference in own):
        dtype, own = torch.float64, [Reference(func, x) for x in points]
    references = [Reference(func, x, func.of("defined")) for x in points]
    kinds = [kind for kind in RECIPE if not (kind == "product" and func.outputs)]
    settings = {"alone": (kinds, 2), "batch": (list(BATCH), 1), "vmap": (kinds, 1)}
    for setting, (some, number) in settings.items():
        for kind in some if every else draw.sample(some, number):
            call = Call(func, points.to(dtype), setting, kind, device)
            found = partial(Finding, seed, f"{setting} {kind} in {str(dtype)[6:]}", tuple(func.names))
            count = 1 if setting == "alone" else 2
            exact = [reference.exact(kind) for reference in references[:count]]
            plain = [reference.by_plain_autograd(kind) for reference in own[:count]]
            yield from _of_call(call, exact, plain, found)


def _of_call(
    call: Call, exact: list[Exact | None], plain: list[Tensor | None], found: Callable[..., Finding]
) -> Iterator[Finding]:
    known = [e for e in exact if e is not None]
    if len(known) < len(exact):
        yield found("unclear", "neither autograd nor differences can tell")
        return
    want, scale = torch.stack([e.value for e in known]), max(1e-6, *(e.scale for e in known))
    dtype = call.rows.dtype
    allowed = max(ROUNDING[dtype], *(e.error for e in known))
    if dtype != torch.float64:
        rounded = [p for p in plain if p is not None]
        if len(rounded) < len(plain):
            yield found("unclear", "plain autograd has no finite result in this precision")
            return
        allowed = max(allowed, 8 * gap(torch.stack(rounded), want, scale))
        if allowed > 0.5:
            yield found("unclear", "plain autograd is imprecise in this precision")
            return
        if any(gap(near, want, scale) > allowed for near in _nearby(call, len(exact))):
            yield found("unclear", "it jumps within rounding")
            return
    accused: list[str] = []
    try:
        with _accusations(accused):
            got = call.automatic()
    except Exception as error:
        may = call.unsure or call.func.of("unsaid") or not call.possible(want, allowed, scale)
        yield found("refused by right" if may else "refused", f"{type(error).__name__}: {' '.join(str(error).split())}")
    else:
        off = gap(got.detach(), want, scale)
        yield found("right") if off <= allowed else found("wrong", f"{off:.1e} off, {allowed:.1e} allowed")
    for name in accused:
        try:
            innocent = call.near(call.candidate(name), want, allowed, scale)
        except Exception:  # it would have been refused
            continue
        if innocent and not call.unsure:  # what it lacks may be less than is allowed here
            yield found("accused", name)


def _nearby(call: Call, count: int) -> Iterator[Tensor]:
    """The derivative in float64, by plain autograd, at points that this precision hardly tells from those asked for."""
    generator = torch.Generator().manual_seed(0)
    rows = call.rows[:count].double()
    for _ in range(6):
        signs = torch.randint(2, rows.shape, generator=generator) * 4 - 2
        moved = rows + signs * torch.finfo(call.rows.dtype).eps * rows.abs()
        found = [Reference(call.func, row).by_plain_autograd(call.kind) for row in moved]
        if all(one is not None for one in found):
            yield torch.stack([one for one in found if one is not None])


def _accusations(names: list[str]) -> Any:
    """Adds the recipes that a check accuses to `names`."""
    checked = Plan.checked

    def noted(plan: Plan, name: str, check: Any, **options: Any) -> Plan:
        if check.outcome == "wrong":
            names.append(name)
        return checked(plan, name, check, **options)

    return mock.patch.object(Plan, "checked", noted)


def run(
    seed: int, number: int, *, every: bool = False, device: str = "cpu", tell: Callable[[str], None] = print
) -> Counter[str]:
    """Judge the functions of `number` seeds; each shortfall is told, and all are counted."""
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seen: set[str] = set()
    for one in range(seed, seed + number):
        for finding in judged(one, every=every, device=device):
            seen.update(finding.names)
            outcomes[finding.outcome] += 1
            if finding.outcome in GRAVE:
                tell(str(finding))
            if finding.outcome not in ("right", "wrong"):
                reasons[f"{finding.outcome}: {finding.detail[:100]}"] += 1
    tell(f"{number} functions of {len(seen)} of {len(OPERATIONS)} operations: {dict(outcomes)}")
    for reason, count in reasons.most_common():
        tell(f"{count:6d} {reason}")
    return outcomes


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own, of what random functions call
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # three digits are no fault of a recipe
    start = time.perf_counter()
    seed, number, *words = sys.argv[1:]
    device = "cuda" if "cuda" in words else "cpu"
    found = run(int(seed), int(number), every="every" in words, device=device, tell=partial(print, flush=True))
    print(f"{time.perf_counter() - start:.0f} s")
    sys.exit(bool(found["wrong"] or found["accused"]))
