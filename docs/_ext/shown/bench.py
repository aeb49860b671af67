"""The `benchmarks` directive: what `nox -s bench` measured, wins and losses alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from _ext.pages.tables import table
from funcdiff._tables import amount_of_bytes, amount_of_flops, seconds

Data = dict[str, Any]


def load(path: Path) -> Data:
    """The benchmark at `path`; one of another torch fails the build."""
    data: Data = json.loads(path.read_text())
    theirs, ours = (version.partition("+")[0] for version in (data["environment"]["torch"], torch.__version__))
    if theirs != ours:
        message = f"{path.name} was measured with torch {theirs}, the site is built with {ours}: run `nox -s bench`"
        raise ExtensionError(message)
    return data


def conditions(data: Data) -> list[nodes.Node]:
    """Where and how it was measured."""
    place = data["environment"]
    changed = " and what was not committed yet" if place["commit"].endswith("+") else ""
    commit = f", commit {place['commit'][:12]}{changed}" if place["commit"] else ""
    text = (
        f"Measured on {place['date'][:10]} on one core of {place['processor']}, torch {place['torch']}, "
        f"Python {place['python']}{commit}; {data['rounds']} rounds, one sample where a call takes longer than "
        f"{data['budget']:g} seconds."
    )
    return [nodes.paragraph("", text)]


def goals(data: Data) -> list[nodes.Node]:
    """How many goals are reached, and each as measured; for one that is not, what could be reached at all."""
    body, verdicts = [], []
    for case in data["cases"]:
        for goal in case["goals"]:
            verdicts.append(goal["verdict"])
            short = goal["verdict"] != "reached" and goal["floor"]
            limit = f"; bare {goal['floor']['median']:.3g}" if short else ""
            wanted = f"≥ {goal['at_least']:g}" if goal["at_least"] else f"≤ {goal['at_most']:g}"
            who = f"{goal['ours']} / {goal['other']}"
            body.append(
                [f"{case['name']}, {goal['what']}", wanted, interval(goal["ratio"]), goal["verdict"] + limit, who]
            )
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("reached", "missed", "undecided"))
    text = f"Of {len(verdicts)} goals: {counts}. Undecided is one that lies within the interval."
    header = ["goal", "times", "measured", "verdict", "ours / against"]
    return [nodes.paragraph("", text), table(header, body, [4, 1, 2, 3, 4], "benchmark")]


def profiles(data: Data) -> list[nodes.Node]:
    """Of each recipe that falls short of a goal, or may: what is bare, and where its time goes."""
    rows = []
    for case in data["cases"]:
        for name, shares in case["profiles"].items():
            told = ", ".join(f"{where} {share:.0%}" for where, share in shares.items())
            rows.append([case["name"], name, case["bare"], told])
    header = ["derivative", "recipe", "bare", "time, the most first"]
    return [table(header, rows, [3, 3, 3, 6], "benchmark")] if rows else []


def interval(ratio: Data) -> str:
    """A ratio with its interval, if it has one."""
    if ratio["low"] == ratio["high"]:
        return f"{ratio['median']:.3g}, exactly"
    high = "∞" if ratio["high"] is None else f"{ratio['high']:.3g}"
    return f"{ratio['median']:.3g} ({ratio['low']:.3g} to {high})"


def cases(data: Data) -> list[nodes.Node]:
    """A table for each derivative: every way, the fastest first, ours among them."""
    found: list[nodes.Node] = []
    for case in data["cases"]:
        ours = case["floor_of"]
        faster = [name for name, ratio in case["ratios"].items() if ratio["high"] is not None and ratio["high"] < 1]
        ahead = [name for name in faster if not name.startswith("its matrix products")]
        text = f"Faster than {ours}: {', '.join(ahead)}." if ahead else f"Nothing is faster than {ours} beyond doubt."
        found += [nodes.rubric(text=case["name"]), nodes.paragraph("", text), _ways(case)]
    return found


def _ways(case: Data) -> nodes.table:
    ours, timings = case["floor_of"], case["times"]["candidates"]
    rows = []
    for name in sorted(timings, key=lambda name: timings[name]["median"]):
        timing, ratio = timings[name], case["ratios"][name]
        times = "1" if name == ours else interval(ratio)
        rows.append(
            [name, seconds(timing["median"]), times, seconds(timing["first"]), *_counts(case["costs"].get(name))]
        )
    rows += [[name, "", "", "", *_counts(cost)] for name, cost in case["costs"].items() if name not in timings]
    header = ["way", "median", f"times {ours}", "first call", "matrix FLOPs", "peak"]
    return table(header, rows, [5, 2, 3, 2, 2, 2], "benchmark")


def _counts(cost: Data | None) -> list[str]:
    return [amount_of_flops(cost["flops"]), amount_of_bytes(cost["peak_bytes"])] if cost else ["", ""]


def networks(data: Data) -> list[nodes.Node]:
    """Each network's gains, with those that the counts foretell, and which compositions were no candidates."""
    rows, losses = [], 0
    for network in data["networks"]:
        for what in ("hessian", "laplacian"):
            found = network[what]
            losses += found["ratio"]["high"] < 1
            out = ", ".join(f"{name} {reason}" for name, reason in found["left_out"].items())
            gains = interval(found["ratio"]), f"{found['flops_ratio']:.3g}"
            rows.append([network["name"], what, found["best"], *gains, out])
    text = f"Slower than the best composition beyond doubt: {losses} of {len(rows)}."
    header = ["network", "of it", "best composition", "its time / ours", "fewest FLOPs / ours", "left out"]
    return [nodes.paragraph("", text), table(header, rows, [4, 2, 4, 3, 2, 4], "benchmark")]


def memory(data: Data) -> list[nodes.Node]:
    """A large Jacobian within a budget, as counted and as the process took."""
    found = data["memory"]
    amounts = [amount_of_bytes(found[name]) for name in ("at_once", "counted", "process")]
    text = (
        f"A Jacobian of {found['shape'][0]} signals by as many sources takes {amounts[0]} all at once. With "
        f'chunk_size="auto" and a budget of {amount_of_bytes(round(found["budget"]))} {found["recipe"]} takes '
        f"{found['chunk']} directions at once: {amounts[1]} by count, {amounts[2]} more than before by the peak of a "
        f"process whose allocator gives freed memory back, in {seconds(found['seconds'])}."
    )
    return [nodes.paragraph("", text)]


def regret(data: Data) -> list[nodes.Node]:
    """The automatic choice against the best recipe, as its own table."""
    if data["regret"] is None:
        return [nodes.paragraph("", "Not part of this run.")]
    worst = [nodes.list_item("", nodes.paragraph("", told)) for told in data["regret"]["worst"]]
    heading = nodes.paragraph("", "The farthest from the best:")
    return [
        table(data["regret"]["columns"], data["regret"]["rows"], name="benchmark"),
        heading,
        nodes.bullet_list("", *worst),
    ]


PARTS: dict[str, Callable[[Data], list[nodes.Node]]] = {
    part.__name__: part for part in (conditions, goals, profiles, cases, networks, memory, regret)
}


class Benchmarks(SphinxDirective):
    """`.. benchmarks:: bench.json goals`: one part of the file, whose path is relative to the page."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The part's nodes."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        return PARTS[self.arguments[1]](load(Path(path)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("benchmarks", Benchmarks)
    return {"parallel_read_safe": True}
