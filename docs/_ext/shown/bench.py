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
from _ext.shown.chart import LEAST, Mark, chart, kind_of, legend
from funcdiff._tables import amount_of_bytes, amount_of_flops, multiple, seconds
from funcdiff.measure import Ratio
from funcdiff.measure.claims import claim_on_time

Data = dict[str, Any]
A_COPY = 1.5  # times the memory of the parameters: more than this is not explained by a copy of them
VERDICTS = {"reached": "✓", "missed": "✗", "undecided": "?"}


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
    changed = " and uncommitted changes" if place["commit"].endswith("+") else ""
    commit = f", commit {place['commit'][:12]}{changed}" if place["commit"] else ""
    text = (
        f"Measured on {place['date'][:10]} with {place['threads']} thread on {place['processor']}, torch "
        f"{place['torch']}, Python {place['python']}{commit}. There are {data['rounds']} rounds, and one sample of a "
        f"method that takes longer than {data['budget']:g} seconds."
    )
    return [nodes.paragraph("", text)]


def goals(data: Data) -> list[nodes.Node]:
    """How many goals are reached, each as measured, and for one that is not, what could be reached at all."""
    body, verdicts, least, most = [], [], [], []
    for case in data["cases"]:
        for goal in case["goals"]:
            verdict, wanted = goal["verdict"], goal["at_least"] or goal["at_most"]
            verdicts.append(verdict)
            short = verdict != "reached" and goal["floor"]
            limit = f"; bare {multiple(goal['floor']['median'])}" if short else ""
            sign = "≥" if goal["at_least"] else "≤"
            who = f"{goal['ours']} / {goal['other']}"
            title = f"{case['name']}, {goal['what']}: {goal['ours']}"
            body.append([title, f"{sign} {wanted:g}", interval(goal["ratio"]), verdict + limit, who])
            text = f"{VERDICTS[verdict]} {multiple(goal['ratio']['median'])}×"
            (least if goal["at_least"] else most).append(
                _mark(title, goal["ratio"], text, goal=wanted, who=goal["ours"])
            )
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in VERDICTS)
    text = (
        f"Of {len(verdicts)} goals: {counts}. A goal is undecided if it lies within the interval. The double line "
        "marks the goal, the bar the interval."
    )
    header = ["goal", "ratio", "measured", "verdict", "ours / against"]
    return [
        nodes.paragraph("", text),
        _html(chart(least, "the other method over ours: at or right of the double line, the goal is reached")),
        _html(chart(most, "ours over the bound: at or left of the double line, the goal is reached")),
        *behind("All goals as a table", table(header, body, [4, 1, 2, 3, 4], "benchmark")),
    ]


def profiles(data: Data) -> list[nodes.Node]:
    """For each recipe that falls short of a goal, or may: what the bare operations take, and where its time goes."""
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
        return f"{multiple(ratio['median'])} (exact)"
    if ratio["high"] is None and not ratio["low"]:
        return f"{multiple(ratio['median'])} (1 sample)"
    high = "∞" if ratio["high"] is None else multiple(ratio["high"])
    return f"{multiple(ratio['median'])} ({multiple(ratio['low'])} to {high})"


def cases(data: Data) -> list[nodes.Node]:
    """A chart for each derivative: every method, the fastest first, ours among them; below it the table."""
    names = [name for case in data["cases"] for name in case["ratios"]]
    found: list[nodes.Node] = [_html(legend(names))]
    for case in data["cases"]:
        ours = case["floor_of"]
        faster = [name for name, ratio in case["ratios"].items() if ratio["high"] is not None and ratio["high"] < 1]
        ahead = [name for name in faster if not name.startswith("its matrix products")]
        text = f"Faster than {ours}: {', '.join(ahead)}." if ahead else f"No method is faster than {ours} beyond doubt."
        text = " ".join([*_against_torch(case), text])
        marks = [
            _mark(
                name, ratio, f"{multiple(ratio['median'])}×" if ratio["median"] >= LEAST else "≈ 0", ours=name == ours
            )
            for name, ratio in sorted(case["ratios"].items(), key=lambda item: item[1]["median"])
        ]
        found += [
            nodes.rubric(text=case["name"]),
            nodes.paragraph("", text),
            _html(chart(marks, f"time over that of {ours}")),
            *behind("Times, counts and intervals", _ways(case)),
        ]
    return found


def _against_torch(case: Data) -> list[str]:
    """Our recipe against the fastest of torch.func's transforms, as a sentence."""
    theirs = {name: ratio for name, ratio in case["ratios"].items() if kind_of(name)[0] == "torch.func"}
    if not theirs:
        return []
    name = min(theirs, key=lambda name: theirs[name]["median"])
    once = [each for each in (case["floor_of"], name) if case["times"]["candidates"][each]["n"] == 1]
    return [claim_on_time(case["floor_of"], name, Ratio(**theirs[name]), None, once).sentence]


def _mark(name: str, ratio: Data, text: str, **more: Any) -> Mark:
    return Mark(name, ratio["median"], ratio["low"], ratio["high"], text, **more)


def _html(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def behind(title: str, *content: nodes.Node) -> list[nodes.Node]:
    """What stands behind a chart, folded."""
    return [_html(f"<details class='behind'><summary>{title}</summary>"), *content, _html("</details>")]


def _ways(case: Data) -> nodes.table:
    ours, timings = case["floor_of"], case["times"]["candidates"]
    rows = []
    for name in sorted(timings, key=lambda name: timings[name]["median"]):
        timing, ratio = timings[name], case["ratios"][name]
        times = "1" if name == ours else interval(ratio)
        once = " (1 sample)" if timing["n"] == 1 else ""
        first = seconds(timing["first"])
        rows.append([name, seconds(timing["median"]) + once, times, first, *_counts(case["costs"].get(name))])
    rows += [[name, "", "", "", *_counts(cost)] for name, cost in case["costs"].items() if name not in timings]
    header = ["method", "median", "ratio", "first call", "matrix FLOPs", "peak"]
    return table(header, rows, [5, 2, 3, 2, 2, 2], "benchmark")


def _counts(cost: Data | None) -> list[str]:
    return [amount_of_flops(cost["flops"]), amount_of_bytes(cost["peak_bytes"])] if cost else ["", ""]


def networks(data: Data) -> list[nodes.Node]:
    """Each network's gains, with those that the counts predict, and which compositions were no candidates."""
    rows, losses, marks = [], 0, []
    for network in data["networks"]:
        for what in ("hessian", "laplacian"):
            found = network[what]
            losses += found["ratio"]["high"] < 1
            out = ", ".join(f"{name} {reason}" for name, reason in found["left_out"].items())
            gains = interval(found["ratio"]), multiple(found["flops_ratio"])
            rows.append([network["name"], what, found["best"], *gains, out])
            title = f"{network['name']}: {what.capitalize()}"
            text = f"{multiple(found['ratio']['median'])}×"
            marks.append(_mark(title, found["ratio"], text, goal=found["flops_ratio"]))
    text = (
        f"In {losses} of {len(rows)} cases, the best composition is faster than Taylor mode beyond doubt: the interval "
        "is left of 1×. The double line marks a ratio of FLOPs: the fewest of any composition, which need not be the "
        "best one, over those of Taylor mode."
    )
    header = ["network", "derivative", "best composition", "ratio of times", "fewest FLOPs, ratio", "left out"]
    return [
        nodes.paragraph("", text),
        _html(chart(marks, "time of the best composition over that of Taylor mode")),
        *behind("All networks as a table", table(header, rows, [4, 2, 4, 3, 2, 4], "benchmark")),
    ]


def memory(data: Data) -> list[nodes.Node]:
    """A large Jacobian within a budget, as counted and as the process took."""
    found = data["memory"]
    amounts = [amount_of_bytes(found[name]) for name in ("at_once", "counted", "process")]
    before = (
        f"A Jacobian of {found['shape'][0]} signals with respect to as many sources needs {amounts[0]} all at once. "
        "With "
    )
    after = (
        f" and a budget of {amount_of_bytes(round(found['budget']))}, {found['recipe']} computes "
        f"{found['chunk']} directions at once, in {seconds(found['seconds'])}. Its peak is {amounts[1]} by count. The "
        f"process needed {amounts[2]} more than before, with an allocator that returns freed memory."
    )
    # As code, whose quotes stay as they are typed.
    option = nodes.literal("", 'chunk_size="auto"')
    return [nodes.paragraph("", "", nodes.Text(before), option, nodes.Text(after))]


def regret(data: Data) -> list[nodes.Node]:
    """The automatic choice against the best recipe, as its own table."""
    if data["regret"] is None:
        return [nodes.paragraph("", "Not part of this run.")]
    worst = [nodes.list_item("", nodes.paragraph("", told)) for told in data["regret"]["worst"]]
    heading = nodes.paragraph("", "These choices lost most time:")
    return [
        table(data["regret"]["columns"], data["regret"]["rows"], name="benchmark"),
        heading,
        nodes.bullet_list("", *worst),
    ]


def curvature(data: Data) -> list[nodes.Node]:
    """Curvature of networks beside the peer, a row for each job."""
    found = data["curvature"]
    if found is None:
        return [nodes.paragraph("", "Not part of this run: curvlinops was not installed.")]
    place, rows, marks, slower, larger = found["environment"], [], [], [], {}
    for job in found["jobs"]:
        times, costs, ratio = job["times"]["candidates"], job["costs"], job["ratio"]
        title = f"{job['network']}: {job['job']}"
        peaks = [costs[who]["peak_bytes"] for who in ("ours", "theirs")]
        medians = [seconds(times[who]["median"]) for who in ("ours", "theirs")]
        rows.append([job["network"], job["job"], *medians, interval(ratio), *map(amount_of_bytes, peaks)])
        marks.append(_mark(title, ratio, f"{multiple(ratio['median'])}×", who="funcdiff"))
        slower += [title] if ratio["low"] > 1 else []
        if peaks[0] > peaks[1]:
            larger[title] = (peaks[0] - peaks[1]) / (4 * job["parameters"])  # float32
    text = (
        f"Measured beside {found['peer']} on {place['date'][:10]} with {place['threads']} thread on "
        f"{place['processor']}, torch {place['torch']}, in {found['rounds']} rounds. Ours is slower beyond doubt in "
        f"{len(slower)} of {len(rows)} rows{_listed(slower)}. {_larger(larger, len(rows))}"
    )
    header = ["network", "job", "ours", "curvlinops", "ratio", "our peak", "their peak"]
    return [
        nodes.paragraph("", text),
        _html(chart(marks, "our time over that of curvlinops")),
        *behind("All jobs as a table", table(header, rows, [3, 4, 2, 2, 3, 2, 2], "benchmark")),
    ]


def prepared(data: Data) -> list[nodes.Node]:
    """Prepared derivatives: their goals, and each beside every other method."""
    found = data.get("prepared")
    if found is None:
        return [nodes.paragraph("", "Not part of this run.")]
    return [*conditions(found), *goals(found), *cases(found)]


def _larger(excess: dict[str, float], rows: int) -> str:
    """Where our peak is larger, by how many times the memory of the parameters, and why."""
    kept = [title for title, times in excess.items() if times > A_COPY]
    copied = [times for times in excess.values() if times <= A_COPY]
    text = f"Its peak is larger in {len(excess)} of {rows} rows."
    if copied:
        text += (
            f" In {len(copied)} of them, the difference is at most {max(copied):.2g} times the memory of the "
            "parameters. The main reason is that funcdiff computes on a copy of the parameters, so that a function "
            "that writes into its argument cannot change your network."
        )
    if kept:
        text += (
            f" In {len(kept)}{_listed(kept)}, only one product is computed. Our operator keeps its graph nevertheless, "
            "for further products."
        )
    return text


def _listed(titles: list[str]) -> str:
    return f" ({'; '.join(titles)})" if titles else ""


PARTS: dict[str, Callable[[Data], list[nodes.Node]]] = {
    part.__name__: part for part in (conditions, goals, profiles, cases, networks, memory, regret, curvature, prepared)
}


class Benchmarks(SphinxDirective):
    """`.. benchmarks:: bench.json goals`: one part of the file, whose path is relative to the page."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The part's nodes."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        self.env.metadata[self.env.docname]["chart"] = True
        return PARTS[self.arguments[1]](load(Path(path)))


def _load_style(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    del template, context, doctree
    if app.env.metadata.get(page, {}).get("chart"):
        app.add_css_file("chart.css")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and the style of charts on its page alone."""
    app.add_directive("benchmarks", Benchmarks)
    app.connect("html-page-context", _load_style)
    return {"parallel_read_safe": True}
