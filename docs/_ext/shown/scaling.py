"""The `scaling` directive: products over several processes, as measured on one machine and as the model has them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from _ext.pages.tables import table
from _tools.scaling import model
from _tools.scaling.model import COUNTS, ETHERNET, FABRIC, LARGE, SMALL
from funcdiff._tables import amount_of_bytes, multiple, seconds
from funcdiff.plots.style import PALETTE

Data = dict[str, Any]
BLUE, ORANGE, GREEN, VIOLET, *_ = PALETTE
LINES = [(SMALL, FABRIC, BLUE), (SMALL, ETHERNET, ORANGE), (LARGE, FABRIC, GREEN), (LARGE, ETHERNET, VIOLET)]
SHORT = {SMALL: "10⁶", LARGE: "10⁹"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 400, 60, 24, 40, 50


def medians(case: Data) -> Data:
    """A measured case with the median of its rounds for each time."""
    return case | {name: median(found[name] for found in case["rounds"]) for name in ("local", "product", "sum")}


def conditions(data: Data) -> list[nodes.Node]:
    """Where and how it was measured."""
    place = data["environment"]
    text = (
        f"Measured on {place['date'][:10]} on {place['processor']}, {data['cores']} cores, torch {place['torch']}, one "
        f"thread for each process, gloo over the machine's own loopback. The network is that of study C with "
        f"{data['parameters']:,} parameters in float32; a product takes {data['flops']:.3g} FLOPs for each parameter "
        f"and row. Each time is a median of {len(data['cases'][0]['rounds'])} rounds. With 4 processes on "
        f"{data['cores']} cores, the processes wait for each other's arithmetic."
    )
    if data["load"] > 2 * data["cores"]:
        text += (
            f" Other programs ran at the same time (load average {data['load']:.0f}): times are longer, and the part "
            "of the sum is smaller, than on an idle machine."
        )
    return [nodes.paragraph("", text)]


def measured(data: Data) -> list[nodes.Node]:
    """The local part of a product, the whole product and the sum alone."""
    body = []
    for case in map(medians, data["cases"]):
        p, rows = case["processes"], case["rows"]
        times = [seconds(case[name]) for name in ("local", "product", "sum")]
        body.append([case["kind"], str(p), str(rows), str(rows * p), *times, f"{case['overhead']:.3f}"])
    header = ["scaling", "processes", "rows of each", "in all", "slowest local part", "product", "sum alone", "ratio"]
    told = "The ratio is the time of the product over that of its slowest local part, the median of all rounds."
    return [table(header, body, [2, 2, 2, 2, 3, 2, 2, 2], "benchmark"), nodes.paragraph("", told)]


def overhead(data: Data) -> list[nodes.Node]:
    """What the sum adds to a product on two processes, and why."""
    of_two = [medians(case) for case in data["cases"] if case["processes"] == 2 and case["kind"] == "weak"]
    of_two.sort(key=lambda case: case["rows"])
    told = [
        f"With {case['rows']} rows on each of two processes, a product takes {case['overhead'] - 1:.1%} longer than "
        f"its slowest local part. The sum alone takes {seconds(case['sum'])}, the local part {seconds(case['local'])}."
        for case in of_two
    ]
    worst = of_two[0]
    reason = (
        f"Each process sends {amount_of_bytes(round(model.sent(data['parameters'], 4, 2)))} for the sum, for any "
        "number of rows. The local part grows with the rows, so with more rows the sum matters less."
    )
    waiting = "A product can take longer than both together, because each process waits for the other before the sum."
    longer = any(case["product"] > case["local"] + case["sum"] for case in of_two)
    more = [text for text, holds in ((waiting, longer), (reason, worst["overhead"] > 1.1)) if holds]
    return [nodes.paragraph("", " ".join([*told, *more]))]


def pays(data: Data) -> list[nodes.Node]:
    """From how many rows on a second process makes a product faster, by the measured times."""
    one = next(
        medians(c) for c in data["cases"] if c["processes"] == 1 and c["rows"] == max(x["rows"] for x in data["cases"])
    )
    two = next(medians(c) for c in data["cases"] if c["processes"] == 2 and c["kind"] == "strong")
    row = one["local"] / one["rows"]
    rows = 2 * two["sum"] / row
    text = (
        f"A second process halves the local part and adds the sum. Here a row takes {seconds(row)} and the sum "
        f"{seconds(two['sum'])}. So two processes are faster than one from about {multiple(float(f'{rows:.1g}'))} rows "
        "in all."
    )
    return [nodes.paragraph("", text)]


def assumed(_: Data) -> list[nodes.Node]:
    """What the model is given."""
    links = [[link.name, f"{link.bandwidth / 1e9:g} GB/s", seconds(link.latency)] for link in (ETHERNET, FABRIC)]
    machines = [
        [network.name, f"{network.machine.rate / 1e9:,.0f} GFLOP/s", seconds(model.local(network, network.rows))]
        for network in (SMALL, LARGE)
    ]
    return [
        table(["network between processes", "bandwidth of each process", "latency"], links, [4, 3, 2]),
        table(["network that is differentiated", "rate", "local part of a product"], machines, [5, 2, 3]),
    ]


def figure(_: Data) -> list[nodes.Node]:
    """The part of a product that is computation, to 4,096 processes."""
    ends = {(n, link): model.weak(n, link, COUNTS[-1]) for n, link, _ in LINES}
    told = "; ".join(f"{SHORT[n]} parameters over {link.name}: {end:.0%}" for (n, link), end in ends.items())
    caption = (
        f"Modelled, not measured: the share of computation in the time of a product, with the same number of rows on "
        f"each of 1 to {COUNTS[-1]:,} processes. With {COUNTS[-1]:,} processes it is: {told}."
    )
    return [nodes.raw("", picture(caption) + legend(), format="html"), nodes.paragraph("", caption)]


def picture(told: str) -> str:
    """Four lines over the number of processes. Their names are in the legend: a phone has no room at their ends."""
    parts = [_text(LEFT, TOP - 8, "share of computation in the time of a product", "start")]
    for tick in COUNTS[::3]:
        x = _x(tick)
        parts += [
            f'<path class="grid" d="M{x} {TOP}V{HEIGHT - BOTTOM}"/>',
            _text(x, HEIGHT - 28, f"{tick:,}", "middle"),
        ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _y(share)
        parts += [
            f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>',
            _text(LEFT - 8, y + 5, f"{share:.0%}", "end"),
        ]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "processes", "middle"))
    for network, link, hue in LINES:
        points = " ".join(f"{_x(p)},{_y(model.weak(network, link, p))}" for p in COUNTS)
        parts.append(f'<polyline points="{points}" style="stroke:{hue}"/>')
    return (
        '<div class="scaling">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg></div>'
    )


def legend() -> str:
    """The name of each line beside its colour."""
    names = "".join(
        f'<span><i style="background:{hue}"></i>{SHORT[network]} parameters, {escape(link.name)}</span>'
        for network, link, hue in LINES
    )
    return f'<p class="scaling-legend">{names}</p>'


def _x(processes: int) -> float:
    return round(LEFT + math.log2(processes) / math.log2(COUNTS[-1]) * (WIDTH - LEFT - RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def modelled(_: Data) -> list[nodes.Node]:
    """The time of a sum, when a second process pays, and the gain of many processes on one amount of data."""
    header = [
        "parameters",
        "network",
        "sum over 2",
        "sum over 4,096",
        "a second pays from",
        "gain of 64",
        "gain of 4,096",
    ]
    body = []
    for network, link, _hue in LINES:
        sums = [seconds(model.all_reduce(network.parameters, network.item, link, p)) for p in (2, 4096)]
        rows = f"{model.rows_worth(network, link):,.0f} rows"
        gains = [multiple(model.strong(network, link, p, 64 * network.rows)) for p in (64, 4096)]
        body.append([SHORT[network], link.name, *sums, rows, *gains])
    told = "The gain says how many times as fast as one process they are, for 64,000 rows in all."
    return [table(header, body, [2, 4, 2, 2, 2, 2, 2], "benchmark"), nodes.paragraph("", told)]


PARTS: dict[str, Callable[[Data], list[nodes.Node]]] = {
    part.__name__: part for part in (conditions, measured, overhead, pays, assumed, figure, modelled)
}


class Scaling(SphinxDirective):
    """`.. scaling:: scaling.json measured`: one part; the path is relative to the page."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The part's nodes."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        return PARTS[self.arguments[1]](json.loads(Path(path).read_text()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("scaling", Scaling)
    return {"parallel_read_safe": True}
