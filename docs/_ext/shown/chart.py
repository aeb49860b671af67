"""A chart of ratios on a logarithmic axis, in HTML: it follows the page's width and its light or dark mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from funcdiff.plots.style import PALETTE

BLUE, ORANGE, GREEN, VIOLET, MAGENTA, _, OLIVE = PALETTE
LEAST = 1 / 50  # what is smaller stands at the left edge
# Whose method it is, in the colour and with the symbol of its kind: the first whose words occur in the name.
KINDS = {
    "torch.compile": ("torch.compile", VIOLET, "◆"),
    "curvlinops": ("curvlinops", OLIVE, "✚"),
    "JAX": ("JAX", ORANGE, "▼"),
    "torch.func": ("torch.func", BLUE, "■"),
    "autograd": ("plain autograd", MAGENTA, "▲"),
    "matrix products": ("arithmetic alone", "currentColor", "○"),
    "": ("funcdiff", GREEN, "●"),
}


class Mark(NamedTuple):
    """A row of a chart: a ratio with its interval, what stands behind it, and the value that was aimed at."""

    name: str
    value: float
    low: float
    high: float | None
    text: str
    ours: bool = False
    goal: float | None = None
    who: str = ""  # whose method it is, where the name does not say so


def kind_of(name: str) -> tuple[str, str, str]:
    """Whose method it is, its colour and its symbol."""
    return next(kind for words, kind in KINDS.items() if words in name)


def chart(marks: Sequence[Mark], label: str) -> str:
    """The rows, from top to bottom, over an axis that holds 1.

    Args:
        marks: The rows.
        label: What the ratios are, below the axis.
    """
    ends = [end for mark in marks for end in (mark.low, mark.value, mark.high, mark.goal) if end]
    low, high = max(min(*ends, 1.0) / 1.15, LEAST), max(*ends, 1.0) * 1.15

    def place(value: float) -> float:
        return round(100 * math.log(max(value, low) / low) / math.log(high / low), 2)

    ticks = [tick for tick in _ticks(low, high) if low <= tick <= high]
    lines = "".join(f"<i class='tick{' one' * (tick == 1)}' style='left:{place(tick)}%'></i>" for tick in ticks)
    rows = "".join(_row(mark, lines, place) for mark in marks)
    numbers = "".join(f"<span style='left:{place(tick)}%'>{tick:g}×</span>" for tick in ticks)
    axis = (
        f"<div class='chart-row chart-axis' aria-hidden='true'><span></span><span class='plot'>{numbers}</span></div>"
    )
    return f"<div class='chart'>{rows}{axis}<p class='chart-label'>{escape(label)}</p></div>"


def legend(names: Sequence[str]) -> str:
    """The symbols of the kinds of method that occur, ours first."""
    kinds = dict.fromkeys(kind_of(name) for name in names)
    ordered = sorted(kinds, key=lambda kind: kind[0] != "funcdiff")
    marks = "".join(f"<span><b style='color:{hue}'>{symbol}</b> {escape(who)}</span>" for who, hue, symbol in ordered)
    return f"<p class='chart-legend'>{marks}</p>"


def _row(mark: Mark, lines: str, place: Callable[[float], float]) -> str:
    _, hue, symbol = kind_of(mark.who or mark.name)
    left, right = place(mark.low), 100.0 if mark.high is None else place(mark.high)
    bar = f"<i class='bar' style='left:{left}%;width:{round(right - left, 2)}%;background:{hue}'></i>"
    goal = f"<i class='goal' style='left:{place(mark.goal)}%'></i>" if mark.goal else ""
    dot = f"<b style='left:{place(mark.value)}%;color:{hue}'>{symbol}</b>"
    ours = " ours" if mark.ours else ""
    return (
        f"<div class='chart-row{ours}'><span class='name'>{escape(mark.name)}</span>"
        f"<span class='plot' aria-hidden='true'>{lines}{goal}{bar}{dot}</span>"
        f"<span class='value'>{escape(mark.text)}</span></div>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade; of many decades only 1."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 40 else (1,)
    return [step * 10.0**decade for decade in decades for step in steps]
