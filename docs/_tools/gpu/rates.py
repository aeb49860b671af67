"""The rates of each recipe on a GPU, fitted to random networks, and what a choice by them loses."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from statistics import geometric_mean
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

import funcdiff as fd
from _tools.bench.regret import Case, cases
from funcdiff._automatic.candidates import HESSIANS, JACOBIANS
from funcdiff._automatic.choice import for_rows
from funcdiff._automatic.costs import FORMULAS
from funcdiff.measure.timing import quiet, timed

CALLS = 7  # of each recipe on each network, the median of which counts
SLOW = 0.1  # seconds of a call that is measured once
# Small networks leave the rates of a FLOP and of a number undecided, down to zero, at which any amount would be free:
# no card today computes faster than this in float32, or writes faster.
FASTEST_FLOP, FASTEST_ELEMENT = 2e-14, 3e-12  # seconds
Sample = dict[str, Any]


def samples(device: str, seed: int, seconds: float) -> list[Sample]:
    """Times of all recipes on random networks, and the amounts that their formulas count; as many as time allows."""
    end = time.monotonic() + seconds
    found: list[Sample] = []
    with quiet(1):
        for case in itertools.takewhile(lambda _: time.monotonic() < end, cases(seed)):
            found += of_network(device, case)
    return found


def of_network(device: str, case: Case) -> list[Sample]:
    """One sample for each recipe that is right on the network."""
    torch.manual_seed(0)
    network = case.network().to(device)
    x = torch.randn(case.rows, case.inputs, device=device) if case.rows > 1 else torch.randn(case.inputs, device=device)
    recipe = for_rows("jacobian" if case.what == "Jacobian" else "hessian", case.rows)
    transform = recipe(network, 0, has_aux=False, randomness="error")
    plan = fd.explain(transform, x[0] if case.rows > 1 else x).plan
    ways = {name: way_of(case, name, network) for name in plan.usable if name in FORMULAS}
    return [
        {
            "case": repr(case),
            "recipe": name,
            "rows": case.rows,
            "amounts": amounts(name, plan.sketch, case.rows),
            "seconds": median_time(way, x),
            "by_processor": plan[name].cost.seconds,
        }
        for name, way in ways.items()
    ]


def way_of(case: Case, name: str, network: Any) -> Callable[[Tensor], Tensor]:
    """The recipe on the network, for one row or for each."""
    if case.what == "Jacobian":
        recipe = JACOBIANS[name]
        return fd.batch_jacobian(network, jacobian=recipe) if case.rows > 1 else recipe(network)
    recipe = HESSIANS[name]
    return fd.batch_hessian(network, hessian=recipe) if case.rows > 1 else recipe(network)


def amounts(name: str, sketch: Any, rows: int) -> list[float]:
    """What each rate multiplies, in the order of `Formula`."""
    formula = FORMULAS[name]
    flops, elements = rows * formula.flops(sketch), rows * formula.elements(sketch)
    results = rows * sketch.outputs * sketch.inputs**formula.degree
    return [1, sketch.calls, formula.general(sketch), flops, elements, results, sketch.flops]


def median_time(way: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Seconds a call takes, once it is warm."""
    way(x)
    once, _ = timed(lambda: way(x))
    return once if once > SLOW else sorted(timed(lambda: way(x))[0] for _ in range(CALLS))[CALLS // 2]


def fitted(some: list[Sample]) -> dict[str, dict[str, list[float]]]:
    """For each recipe its rates alone and under vmap: non-negative, with the least relative error."""
    rates: dict[str, dict[str, list[float]]] = {}
    for name in FORMULAS:
        rates[name] = {}
        for key, of_rows in (("alone", False), ("rows", True)):
            chosen = [s for s in some if s["recipe"] == name and (s["rows"] > 1) == of_rows]
            if chosen:
                matrix = np.array([s["amounts"] for s in chosen]) / np.array([[s["seconds"]] for s in chosen])
                scale = np.maximum(matrix.max(0), 1e-300)
                solution, _ = nnls(matrix / scale, np.ones(len(chosen)))
                solution /= scale
                solution[3] = max(solution[3], FASTEST_FLOP)
                solution[4] = max(solution[4], FASTEST_ELEMENT)
                rates[name][key] = [float(f"{rate:.2g}") for rate in solution]
    return rates


def regret(some: list[Sample], predicted: Callable[[Sample], float]) -> dict[str, Any]:
    """The chosen recipe's time over the best one's, over the networks."""
    losses = []
    for _, group in itertools.groupby(some, key=lambda s: s["case"]):
        recipes = list(group)
        chosen = min(recipes, key=predicted)
        losses.append(chosen["seconds"] / min(s["seconds"] for s in recipes))
    return {
        "networks": len(losses),
        "geometric_mean": geometric_mean(losses),
        "worst": max(losses),
        "above_1.25": sum(loss > 1.25 for loss in losses),
    }


def run(device: str, seconds: float) -> dict[str, Any]:
    """Rates from all networks; and what a choice by those from half of them, or the processor's, loses on the rest."""
    some = samples(device, 11, seconds)
    names = sorted({s["case"] for s in some})
    random.Random(0).shuffle(names)
    kept = set(names[: len(names) // 2])
    rates = fitted([s for s in some if s["case"] in kept])
    others = [s for s in some if s["case"] not in kept]

    def by_device(s: Sample) -> float:
        one = rates[s["recipe"]].get("rows" if s["rows"] > 1 else "alone")
        return float(np.dot(one, s["amounts"])) if one else float("inf")

    return {
        "rates": fitted(some),
        "regret": regret(others, by_device),
        "regret_by_processor": regret(others, lambda s: s["by_processor"]),
    }
