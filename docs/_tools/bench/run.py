"""Runs the benchmark on one core and writes it as JSON: `nox -s bench`; `-- curvature` or `-- prepared`, that part."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import funcdiff as fd
from _tools.bench import budget, curvature, prepared_cases, regret
from _tools.bench.case import PRODUCTS, Case, Goal
from _tools.bench.cases import cases
from _tools.bench.floor import products_of
from _tools.bench.networks import COMPOSITIONS, Network, networks
from _tools.bench.profiling import profile
from funcdiff.measure import Comparison, Costs, Ratio, compare, count, environment
from funcdiff.measure.agreement import check_agreement

LINE = 800  # in the file: a method's times, with their ratio
ROUNDS = 15
ROUNDS_OF_GOALS = 41  # of the few ways that goals are about, beside nothing else
BUDGET = 5.0  # seconds a call, beyond which one sample is enough


def run_case(case: Case) -> dict[str, Any]:
    """Time the ways to one derivative beside each other, count them, and judge the goals."""
    products = products_of(case.ways[case.floor], *case.args) if case.products else None
    ways = case.ways | ({PRODUCTS: products} if products else {})
    times = compare(ways, *case.args, rounds=ROUNDS, budget=BUDGET)
    costs = count(case.counted, *case.meta) if case.counted else None
    timed = [goal for goal in case.goals if goal.quantity == "time"]
    names = {case.bare}.union(*({goal.ours, *goal.others} for goal in timed))
    again = (
        compare({name: ways[name] for name in sorted(names)}, *case.args, rounds=ROUNDS_OF_GOALS) if timed else times
    )
    goals = [judged(goal, again, costs, case.bare) for goal in case.goals]
    short = {goal["ours"] for goal in goals if goal["verdict"] != "reached"}
    return {
        "name": case.name,
        "floor_of": case.floor,
        "bare": case.bare,
        "times": times.to_dict(),
        "ratios": {name: times.ratio(name, case.floor).to_dict() for name in times},
        "costs": costs.to_dict()["candidates"] if costs else {},
        "goals": goals,
        "goal_times": again.to_dict(),
        "profiles": {name: profile(ways[name], *case.args) for name in sorted(short)},
    }


def judged(goal: Goal, times: Comparison, costs: Costs | None, bare: str) -> dict[str, Any]:
    """What was measured of a goal, and whether it is reached."""
    if goal.quantity == "time":
        other = min(goal.others, key=lambda name: times[name].median)
        ratio = times.ratio(goal.ours, other) if goal.at_most else times.ratio(other, goal.ours)
        within = times.ratio(other, bare).to_dict() if goal.at_least else None
    else:
        assert costs is not None  # a goal on counts is of a case that is counted
        other = min(goal.others, key=lambda name: getattr(costs[name], goal.quantity))
        ours, theirs = (getattr(costs[name], goal.quantity) for name in (goal.ours, other))
        exact = ours / theirs if goal.at_most else theirs / ours
        ratio, within = Ratio(exact, exact, exact, 1), None
    return {
        "what": goal.what,
        "quantity": goal.quantity,
        "ours": goal.ours,
        "other": other,
        "ratio": ratio.to_dict(),
        "at_least": goal.at_least,
        "at_most": goal.at_most,
        "floor": within,  # what would be reached without our code
        "verdict": verdict(ratio, goal.at_least, goal.at_most),
    }


def verdict(ratio: Ratio, at_least: float | None, at_most: float | None) -> str:
    """Reached or missed with the whole interval; else this run cannot tell."""
    if at_least is None:
        assert at_most is not None  # a goal has one of the two
        return verdict(ratio.inverse, 1 / at_most, None)
    if ratio.low >= at_least:
        return "reached"
    return "missed" if ratio.high < at_least else "undecided"


def run_network(network: Network) -> dict[str, Any]:
    """Taylor mode against the best right composition, for the Hessian and the Laplacian."""
    hessians = {name: network.over_rows(recipe) for name, recipe in COMPOSITIONS.items()}
    laplacians = {f"trace of {name}": network.traced(recipe) for name, recipe in COMPOSITIONS.items()}
    return {
        "name": network.name,
        "hessian": against_best("hessian_taylor", network.over_rows(fd.hessian_taylor), hessians, network.args),
        "laplacian": against_best("laplacian", network.over_rows(fd.laplacian), laplacians, network.args),
    }


def against_best(
    name: str, ours: Callable[..., Any], others: Mapping[str, Callable[..., Any]], args: tuple[Any, ...]
) -> dict[str, Any]:
    """One of ours beside every composition that gives the same."""
    expected = ours(*args)
    out = {other: reason for other, way in others.items() if (reason := objection(expected, way, args))}
    right = {other: way for other, way in others.items() if other not in out}
    times = compare({name: ours, **right}, *args, rounds=ROUNDS, budget=BUDGET)
    costs = count({name: ours, **right}, *args)
    fastest = min(right, key=lambda other: times[other].median)
    fewest = min(right, key=lambda other: costs[other].flops)
    return {
        "best": fastest,
        "ratio": times.ratio(fastest, name).to_dict(),
        "fewest_flops": fewest,
        "flops_ratio": costs[fewest].flops / costs[name].flops,
        "left_out": out,
        "times": times.to_dict(),
    }


def objection(expected: Any, way: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Why a composition is no candidate: it gives another result, or none."""
    try:
        check_agreement("ours", expected, "it", way(*args))
    except ValueError:
        return "differs"
    except RuntimeError:
        return "refuses"
    return ""


def run_prepared() -> dict[str, Any]:
    """The cases of prepared derivatives, with where they were measured."""
    return {
        "environment": environment().to_dict(),
        "rounds": ROUNDS,
        "budget": BUDGET,
        "cases": [_told(run_case, case) for case in prepared_cases.cases()],
    }


ALONE = {"curvature": curvature.run, "prepared": run_prepared}  # what may be measured without the rest


def main(path: Path, *parts: str) -> None:
    """Run everything, or some parts alone, on the first core that may be used, where the system lets it choose."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:  # compiled code of an earlier run would shorten first calls
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        torch.compile(torch.sin)(torch.ones(1))  # what the compiler finds out about the machine is charged to nobody
        result = json.loads(path.read_text()) if parts else run_rest()
        result |= {part: ALONE[part]() for part in parts or ALONE}
    path.write_text(written(result) + "\n")


def run_rest() -> dict[str, Any]:
    """What is only measured together."""
    return {
        "environment": environment().to_dict(),
        "rounds": ROUNDS,
        "budget": BUDGET,
        "cases": [_told(run_case, case) for case in cases()],
        "networks": [_told(run_network, network) for network in networks()],
        "memory": budget.run_alone(2048, 2000, 1e9),
        "regret": regret.run(),
    }


def written(value: Any, indent: str = "") -> str:
    """As JSON, with what fits into `LINE` characters on a line: what changes between two runs shows in a diff."""
    line, inner = json.dumps(value), indent + " "
    if len(line) <= LINE or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {written(part, inner)}" for key, part in value.items()]
    else:
        parts = [written(part, inner) for part in value]
    return f"{line[0]}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{line[-1]}"


def _told(run: Callable[[Any], dict[str, Any]], subject: Case | Network) -> dict[str, Any]:
    print(subject.name, flush=True)
    return run(subject)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
