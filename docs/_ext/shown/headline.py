"""The home page's figure: one Hessian by `torch.func` and by funcdiff, counted and timed while the page is built.

`.. headline::` becomes the figure; its title is made from what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import torch
from docutils import nodes
from sphinx.application import Sphinx

import funcdiff
from _ext.pages.computed import Computed
from funcdiff._tables import amount_of_bytes, amount_of_flops, multiple, seconds
from funcdiff.measure import Comparison, Costs, compare, count
from funcdiff.measure.ratios import CONFIDENCE, Ratio
from funcdiff.plots import colour
from funcdiff.problems import study_network

THEIRS, OURS = "torch.func", "funcdiff"
CODE = {THEIRS: "vmap(torch.func.hessian(net))(X)", OURS: "batch_hessian(net)(X)"}
HUES = {THEIRS: colour("hessian_forward_over_reverse"), OURS: colour("batch_hessian")}
ROWS, ROUNDS = 100, 9
WORDS = (
    "<p>The first call of funcdiff also chooses the recipe and checks its result. The medians are of later calls.</p>"
)


class Finding(NamedTuple):
    """What the figure shows."""

    times: Comparison
    costs: Costs
    recipe: str | None

    @property
    def ratio(self) -> Ratio:
        """How many times the time of ours theirs takes."""
        return self.times.ratio(THEIRS, OURS)

    def fewer(self, quantity: str) -> float:
        """How many times as much of a quantity theirs needs."""
        ours: float = getattr(self.costs[OURS], quantity)
        return getattr(self.costs[THEIRS], quantity) / ours


def measured() -> Finding:
    """Count and time both, which must agree, on a network 5 -> 1000 -> 1000 -> 25 and rows of its inputs."""
    torch.manual_seed(0)
    net = study_network().requires_grad_(False)
    batch = torch.randn(ROWS, 5)
    both = {THEIRS: torch.func.vmap(torch.func.hessian(net)), OURS: funcdiff.batch_hessian(net)}
    times = compare(both, batch, rounds=ROUNDS)  # before anything else calls them, as it shows their first calls
    costs = count(both, batch)
    return Finding(times, costs, chosen(net, batch, costs[OURS].cells))


def chosen(net: Callable[..., torch.Tensor], batch: torch.Tensor, cells: tuple[str, ...]) -> str | None:
    """The recipe that `batch_hessian` chose: the one whose counts are its own."""
    for name in ("hessian_taylor", "hessian_forward_over_forward", "hessian_forward_over_reverse"):
        by_name = funcdiff.batch_hessian(net, hessian=getattr(funcdiff, name))
        if count({name: by_name}, batch)[name].cells == cells:
            return name
    return None


def title(ratio: Ratio, flops: float, memory: float) -> str:
    """State the finding, whichever it is."""
    if ratio.low > 1:
        speed = f"{multiple(ratio.median)}× faster"
    elif ratio.high < 1:
        speed = f"{multiple(ratio.inverse.median)}× slower in this run"
    else:
        speed = "no faster in this run"
    return f"The same Hessian: {speed}, {_less(flops, 'fewer', 'more')} FLOPs, {_less(memory, 'less', 'more')} memory"


def _less(factor: float, less: str, more: str) -> str:
    return f"{factor:.2g}× {less}" if factor >= 1 else f"{1 / factor:.2g}× {more}"


def sentence(found: Finding) -> str:
    """What is compared, and under which conditions."""
    ratio, place = found.ratio, found.times.environment
    chose = f" <code>batch_hessian</code> chose <code>{found.recipe}</code>." if found.recipe else ""
    return (
        f"Both compute the Hessian of each of {ROWS} rows, for a network with 5 inputs, two hidden layers of 1000 "
        f"units and 25 outputs. Their results agree.{chose} Times were measured when this site was built, on one "
        f"thread of {escape(place.processor)} with torch {escape(place.torch)}. The bars show their medians. Each of "
        f"{ratio.n} rounds times both functions, and the factor in the title is the median of the {ratio.n} ratios "
        f"({CONFIDENCE:.0%} interval {multiple(ratio.low)}× to {multiple(ratio.high)}×). Matrix FLOPs are the "
        "floating-point operations in matrix products. FLOPs and memory are exact counts. The finder below predicts "
        "such numbers from the sizes alone. Its memory is an estimate, up to about twice the count. Its times are for "
        "an idle machine, so they can be several times shorter."
    )


def bars(label: str, values: Sequence[float], texts: Sequence[str]) -> str:
    """Two bars, theirs and ours, the longer one over the whole width."""
    rows = "".join(
        f'<span class="name">{name}</span><span class="bar"><span style="width: {value / max(values):.1%}; '
        f'background: {HUES[name]}"></span></span><span class="value">{text}</span>'
        for name, value, text in zip(CODE, values, texts, strict=True)
    )
    return f'<div class="measure"><p>{label}</p><div class="bars">{rows}</div></div>'


def figure(found: Finding) -> str:
    """The figure as HTML, in the colours and at the width of the page."""
    times = [found.times[name].median for name in CODE]
    flops, peaks = ([getattr(found.costs[name], part) for name in CODE] for part in ("flops", "peak_bytes"))
    code = " ".join(
        f'<span style="--hue: {HUES[name]}"><b>{name}</b> <code>{escape(text)}</code></span>'
        for name, text in CODE.items()
    )
    tables = f"{found.times._repr_html_()}{found.costs._repr_html_()}{WORDS}"
    return (
        '<figure class="headline">'
        f'<p class="title">{title(found.ratio, found.fewer("flops"), found.fewer("peak_bytes"))}</p>'
        f'<p class="code">{code}</p>'
        + bars("Time of a call", times, [seconds(value) for value in times])
        + bars("Matrix FLOPs", flops, [amount_of_flops(value) for value in flops])
        + bars("Peak memory", peaks, [amount_of_bytes(value) for value in peaks])
        + f"<figcaption>{sentence(found)}</figcaption></figure>"
        '<details class="numbers"><summary>The numbers of this figure</summary>'
        f'<div class="output_html">{tables}</div></details>'
    )


class Headline(Computed):
    """`.. headline::`."""

    def compute(self) -> list[nodes.Node]:
        """Measure, and show it."""
        return [nodes.raw("", figure(measured()), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("headline", Headline)
    return {"parallel_read_safe": True}
