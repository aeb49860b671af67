"""How much the automatic choice loses against the best recipe, over random networks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from statistics import geometric_mean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import funcdiff as fd
from funcdiff._automatic.candidates import HESSIANS, JACOBIANS
from funcdiff._automatic.choice import for_rows
from funcdiff._automatic.planning import Plan
from funcdiff._safety.known_wrong import INSIDE_TRANSFORM
from funcdiff._tables import number_of

CASES = 200
SECONDS = 0.25  # to time a case in, all its recipes together
DOUBTFUL = 1.1  # a loss from which on a case is timed again, for as long as follows, which then counts
SECONDS_AGAIN = 1.0
ROUNDS = 100  # a second, at most
OUT_OF_THE_RACE = 6  # times the best: not timed further
HOPELESS = 20  # times the best by prediction: not timed at all
LARGEST = 2e10  # FLOPs of the dearest recipe that is tried
ACTIVATIONS = (nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.Sigmoid)


class Case(NamedTuple):
    """A network and the derivative asked of it, for one row or for each of several."""

    what: str
    inputs: int
    outputs: int
    rows: int
    width: int
    layers: int
    activation: type[nn.Module]
    norm: bool

    def network(self) -> nn.Module:
        """With its parameters drawn anew; nothing here depends on them."""
        parts: list[nn.Module] = []
        for i in range(self.layers):
            parts.append(nn.Linear(self.width if i else self.inputs, self.width))
            parts += [nn.LayerNorm(self.width)] if self.norm else []
            parts.append(self.activation())
        return nn.Sequential(*parts, nn.Linear(self.width, self.outputs)).requires_grad_(False)


def cases(seed: int) -> Iterator[Case]:
    """Of all sizes, evenly by their logarithm; those left out whose slowest recipe would take too long."""
    draw = random.Random(seed)

    def size(most: float) -> int:
        return round(2 ** draw.uniform(0, most))

    while True:
        what = draw.choice(("Jacobian", "Hessian"))
        inputs, outputs = (size(9.5), size(9.5)) if what == "Jacobian" else (size(7), draw.choice((1, size(7))))
        rows, width, layers = draw.choice((1, 1, size(8))), 8 * size(7), draw.choice((1, 2, 3, 4))
        case = Case(what, inputs, outputs, rows, width, layers, draw.choice(ACTIVATIONS), draw.random() < 0.25)
        passes = max(inputs, outputs) if what == "Jacobian" else max(inputs**2, (1 + inputs) * (1 + outputs))
        weights = inputs * width + (layers - 1) * width**2 + width * outputs
        if 2 * weights * rows * passes < LARGEST:
            yield case


def recipes(case: Case, plan: Plan) -> dict[str, Callable[[Tensor], Tensor]]:
    """Those that the choice is between, but for the hopeless."""
    batch: Any = fd.batch_jacobian if case.what == "Jacobian" else fd.batch_hessian
    named = JACOBIANS if case.what == "Jacobian" else HESSIANS
    network = case.network()
    costs = {c.name: c.cost.seconds for c in plan.candidates if c.cost and not c.obstacle}
    hopeful = [name for name, seconds in costs.items() if seconds < HOPELESS * min(costs.values())]
    return {
        name: batch(network, **{case.what.lower(): named[name]}) if case.rows > 1 else named[name](network)
        for name in hopeful
    }


def timed(
    ways: dict[str, Callable[[Tensor], Tensor]], x: Tensor, draw: random.Random, seconds: float = SECONDS
) -> dict[str, float]:
    """The lower quartile of each way's processor time, in turn and in random order."""

    def once(way: Callable[[Tensor], Tensor]) -> float:
        start = time.process_time()
        way(x)
        return time.process_time() - start

    for way in ways.values():
        way(x)
    first = {name: once(way) for name, way in ways.items()}
    near = [name for name in ways if first[name] < OUT_OF_THE_RACE * min(first.values())]
    rounds = max(3, int(min(ROUNDS * seconds, seconds / sum(first[name] for name in near))))
    times: dict[str, list[float]] = {name: [] for name in near}
    for _ in range(rounds):
        for name in draw.sample(near, len(near)):
            times[name].append(once(ways[name]))
    return {name: sorted(some)[len(some) // 4] for name, some in times.items()} | {
        name: first[name] for name in ways if name not in near
    }


def run(seed: int = 2) -> dict[str, Any]:
    """The choice over `CASES` networks that no rate was fitted to; the worst ones by name."""
    draw = random.Random(seed)
    regrets: list[tuple[float, Case, str, str]] = []
    for case, _ in zip(cases(seed), range(CASES), strict=False):
        x = torch.randn(case.rows, case.inputs) if case.rows > 1 else torch.randn(case.inputs)
        plan = _planned(case, x)
        ways, chosen = recipes(case, plan), plan.usable[0]
        times = timed(ways, x, draw)
        if times[chosen] > DOUBTFUL * min(times.values()):
            times = timed(ways, x, draw, SECONDS_AGAIN)
        best = min(times, key=lambda name: times[name])
        regrets.append((times[chosen] / times[best], case, chosen, best))
    columns = ["of", "cases", "geometric mean", "worst", "above 1.25"]
    rows = []
    for what in ("Jacobian", "Hessian"):
        some = [regret for regret, case, *_ in regrets if case.what == what]
        rows.append(
            [what, str(len(some)), f"{geometric_mean(some):.3f}", f"{max(some):.2f}", str(sum(r > 1.25 for r in some))]
        )
    worst = sorted(regrets, key=lambda found: -found[0])[:5]
    return {"columns": columns, "rows": rows, "worst": [_told(*found) for found in worst]}


def _planned(case: Case, x: Tensor) -> Plan:
    recipe = for_rows("jacobian" if case.what == "Jacobian" else "hessian", case.rows)
    transform = recipe(case.network(), 0, has_aux=False, randomness="error")
    return fd.explain(transform, x[0] if case.rows > 1 else x).plan


def _told(regret: float, case: Case, chosen: str, best: str) -> str:
    norm = ", layer norm" if case.norm else ""
    if case.rows > 1:  # of a batch, as explain names them
        chosen, best = (INSIDE_TRANSFORM.get(name, name) for name in (chosen, best))
    return (
        f"{regret:.2f}: {case.what} of {case.inputs} -> {case.layers} x {case.width} -> {case.outputs}, "
        f"{case.activation.__name__}{norm}, {number_of(case.rows, 'row')}: {chosen}, where {best} is fastest"
    )
