"""The `gpu-figures` directive: what `nox -s gpu` measured on a GPU, beside the processor of the same machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from _ext.pages.tables import Cell, table
from funcdiff._tables import amount_of_bytes, seconds
from funcdiff.measure.ratios import CONFIDENCE

Data = dict[str, Any]
SHAPES = "16 inputs, 16", "32 inputs, 2048"
DEVICES = {"cpu": "processor", "cuda": "GPU"}
SHORT = {"jacobian_forward": "forward", "jacobian_reverse": "reverse"}


def _time(value: float) -> str:
    """Seconds that stay on one line with their unit."""
    return seconds(value).replace(" ", "\N{NO-BREAK SPACE}")


def conditions(data: Data) -> list[nodes.Node]:
    """Where and how it was measured."""
    place = data["environment"]
    text = (
        f"Measured on {place['date'][:10]} on {place['accelerator']}, driver {data['driver']}, and on the processor of "
        f"the same machine, {place['processor']} with {place['threads']} threads, by torch {place['torch']} and Python "
        f"{place['python']}. Each time is the median of {data['rounds']} rounds in the table of the studies, and of at "
        "least 8 elsewhere. Slow calls were timed once: above 0.5 s in that table, and above 0.2 s elsewhere."
    )
    return [nodes.paragraph("", text)]


def pairs(data: Data) -> Iterator[tuple[str, Data, Data]]:
    """Each row of the studies with its times on the processor and on the GPU."""
    for here, there in zip(data["studies_cpu"], data["studies_cuda"], strict=True):
        yield f"{here['study']}: {here['name']}", here["times"]["candidates"], there["times"]["candidates"]


def fastest(times: Data) -> str:
    """The name of the least median."""
    return min(times, key=lambda name: times[name]["median"])


def kept(data: Data) -> list[nodes.Node]:
    """The answer: how often the fastest method on the processor is also the fastest on the GPU."""
    rows = list(pairs(data))
    changed = len(_changed(rows))
    text = (
        f"Is the ranking of the methods the same on a GPU? In {len(rows) - changed} of {len(rows)} cases the fastest "
        f"method is the same, or the difference is within the noise. In {changed} it is another one."
    )
    return [nodes.paragraph("", text)]


def _changed(rows: Sequence[tuple[str, Data, Data]]) -> list[tuple[str, Data, Data]]:
    """The rows whose fastest method is another one on the GPU, beyond the noise on both."""
    return [
        (name, cpu, gpu)
        for name, cpu, gpu in rows
        if min(gpu[fastest(cpu)]["ratio"]["low"], cpu[fastest(gpu)]["ratio"]["low"]) > 1
    ]


def turned(data: Data) -> list[nodes.Node]:
    """A sentence for each row whose fastest method is another one on the GPU; what counts as such."""
    rows = list(pairs(data))
    changed = _changed(rows)
    told = []
    for name, cpu, gpu in changed:
        here, there = fastest(cpu), fastest(gpu)
        told.append(
            f"{name}: {here} is fastest on the processor and {there} on the GPU, where {here} takes "
            f"{gpu[here]['ratio']['median']:.2g} times as long. "
            f"There the slowest method takes {_spread(gpu):.2g} times as long as the fastest one."
        )
    head = nodes.paragraph("", f"The fastest method is another one on the GPU in {len(changed)} of {len(rows)} rows:")
    items = nodes.bullet_list("", *(nodes.list_item("", nodes.paragraph("", text)) for text in told))
    close = sum(fastest(cpu) != fastest(gpu) for _, cpu, gpu in rows) - len(changed)
    counted = (
        "We count a row only if the difference is larger than the noise on both devices: the "
        f"{CONFIDENCE:.0%} intervals of both ratios exclude 1. In {close} other {'row' if close == 1 else 'rows'} of "
        "the table below, the smallest time belongs to another method as well, but on at least one device the "
        "difference is within the noise."
    )
    return [head, items, nodes.paragraph("", counted), nodes.paragraph("", _of_outputs(rows))]


def slower(data: Data) -> list[nodes.Node]:
    """How much longer the smallest derivatives take on the GPU."""
    most = max(gpu[method]["median"] / cpu[method]["median"] for _, cpu, gpu in pairs(data) for method in cpu)
    return [nodes.paragraph("", f"In the table of the studies, the GPU takes up to {most:.2g} times as long.")]


def _spread(times: Data) -> float:
    """How many times as long as the fastest method the slowest takes."""
    medians = [timed["median"] for timed in times.values()]
    return max(medians) / min(medians)


def _of_outputs(rows: Sequence[tuple[str, Data, Data]]) -> str:
    """How reverse mode depends on the number of outputs: on the GPU one batch has all passes."""
    grown = []
    for device in (1, 2):
        times = {row[0]: row[device]["jacobian_reverse"]["median"] for row in rows if "jacobian_reverse" in row[device]}
        few, many = (times[f"A: Jacobian, {shape} outputs"] for shape in SHAPES)
        grown.append(many / few)
    start, end = (f"{shape.replace(',', ' and')} outputs" for shape in SHAPES)
    return (
        f"Reverse mode computes the rows of all outputs in one batch. From {start} to {end}, its time grows by a "
        f"factor of {grown[1]:.2g} on the GPU and of {grown[0]:.2g} on the processor."
    )


def studies(data: Data) -> list[nodes.Node]:
    """Every row of the studies: each method's time on both, and how many times faster the GPU is."""
    body: list[Sequence[Cell]] = []
    for name, cpu, gpu in pairs(data):
        body.append([nodes.strong("", name)])
        for method in sorted(cpu, key=lambda method: cpu[method]["median"]):
            here, there = cpu[method]["median"], gpu[method]["median"]
            body.append([method, _time(here), _time(there), f"{here / there:.2g}"])
    return [table(["method", "processor", "GPU", "processor / GPU"], body, [4, 2, 2, 2], "studies-rows")]


def winners(data: Data) -> list[nodes.Node]:
    """Two grids of inputs by outputs: the faster mode, and how many times the other takes."""
    grids = "".join(_grid(data[f"winners_{device}"], f"On the {name}") for device, name in DEVICES.items())
    closest = {device: _largest(data[f"winners_{device}"]) for device in DEVICES}
    text = (
        f"The wrong mode takes up to {closest['cpu']:.3g} times as long on the processor, and up to "
        f"{closest['cuda']:.3g} times on the GPU."
    )
    return [nodes.raw("", f'<div class="winner-grids">{grids}</div>', format="html"), nodes.paragraph("", text)]


def _ratio(cell: Data) -> float:
    return max(ratio["median"] for ratio in cell["ratios"].values())


def _largest(cells: Sequence[Data]) -> float:
    return max(map(_ratio, cells))


def _grid(cells: Sequence[Data], caption: str) -> str:
    inputs, outputs = (sorted({cell[side] for cell in cells}) for side in ("inputs", "outputs"))
    found = {(cell["inputs"], cell["outputs"]): cell for cell in cells}
    head = "".join(f'<th scope="col">{m}</th>' for m in outputs)
    rows = []
    for n in inputs:
        row = ""
        for m in outputs:
            mode = SHORT[found[n, m]["fastest"]]
            row += f'<td class="{mode}">{mode}<br>{_ratio(found[n, m]):.3g}×</td>'
        rows.append(f'<tr><th scope="row">{n}</th>{row}</tr>')
    return (
        f'<table class="winner-grid"><caption>{escape(caption)}: inputs down, outputs across</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def growing(data: Data) -> list[nodes.Node]:
    """Study C's network with more rows and with wider layers, on both."""
    body = []
    for here, there in zip(data["growing_cpu"], data["growing_cuda"], strict=True):
        times = [f"{_time(here['medians'][m])} / {_time(there['medians'][m])}" for m in here["medians"]]
        body.append([str(here["rows"]), str(here["width"]), *times, *[""] * (4 - len(times))])
    header = ["rows", "width", "evaluation", "forward mode", "reverse mode", "Taylor Hessian"]
    return [table(header, body, [1, 1, 2, 2, 2, 2], "benchmark"), nodes.paragraph("", "Each cell: processor / GPU.")]


def peaks(data: Data) -> list[nodes.Node]:
    """The counted peaks beside what the allocator of the GPU saw."""
    body = []
    for p in data["peaks"]:
        amounts = amount_of_bytes(p["counted"]), amount_of_bytes(p["allocated"])
        body.append([p["recipe"], *amounts, f"{p['allocated'] / p['counted']:.3f}"])
    return [table(["recipe", "counted", "allocated", "ratio"], body, [4, 2, 2, 1], "benchmark")]


def precision(data: Data) -> list[nodes.Node]:
    """Relative errors against float64, for each setting of TF32."""
    settings = list(dict.fromkeys(found["setting"] for found in data["precision"]))
    body: dict[tuple[str, str], list[str]] = {}
    for found in data["precision"]:
        body.setdefault((found["layers"], found["derivative"]), []).append(f"{found['error']:.1e}")
    rows = [[f"{derivative}, {layers}", *errors] for (layers, derivative), errors in body.items()]
    return [table(["derivative", *settings], rows, [4, 2, 2, 2], "benchmark")]


def graphs(data: Data) -> list[nodes.Node]:
    """The times of small derivatives as they are, prepared, and as a CUDA graph; what the other two save."""
    rows = []
    for found in data["graphs"]:
        times = [_time(timing["median"]) for timing in found["times"]["candidates"].values()]
        saved = [f"{r['median']:.3g} ({r['low']:.3g} to {r['high']:.3g})" for r in found["ratios"].values()]
        rows.append([found["name"], *times, *saved])
    header = ["derivative", "called", "prepared", "replayed", "called / prepared", "called / replayed"]
    seen = []
    for quick, told in (("prepared", "A prepared derivative is"), ("replayed", "its CUDA graph")):
        saved = [found["ratios"][quick]["median"] for found in data["graphs"]]
        seen.append(f"{told} {min(saved):.2g} to {max(saved):.2g} times")
    text = (
        f"{' and '.join(seen)} as fast as the derivative itself. A ratio is the median over the rounds; brackets hold "
        f"its {CONFIDENCE:.0%} interval."
    )
    return [table(header, rows, [5, 2, 2, 2, 3, 3], "benchmark"), nodes.paragraph("", text)]


def choice(data: Data) -> list[nodes.Node]:
    """What the choice loses on the GPU against the best recipe, by its own rates and by the processor's."""
    found = data["rates"]
    rows = [
        [name, str(r["networks"]), f"{r['geometric_mean']:.3f}", f"{r['worst']:.2f}", str(r["above_1.25"])]
        for name, r in (("of the GPU", found["regret"]), ("of a processor", found["regret_by_processor"]))
    ]
    return [table(["rates", "networks", "geometric mean", "worst", "above 1.25"], rows, [2, 1, 2, 1, 1], "benchmark")]


PARTS: dict[str, Callable[[Data], list[nodes.Node]]] = {
    part.__name__: part
    for part in (kept, conditions, slower, turned, studies, winners, growing, peaks, precision, graphs, choice)
}


class GpuFigures(SphinxDirective):
    """`.. gpu-figures:: gpu.json studies`: one part of the file, whose path is relative to the page."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The part's nodes."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        data = json.loads(Path(path).read_text())
        if "studies_cuda" not in data:
            raise ExtensionError(f"{path} holds no figures of a GPU: run `nox -s gpu -- keep` where there is one")
        return PARTS[self.arguments[1]](data)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("gpu-figures", GpuFigures)
    return {"parallel_read_safe": True}
