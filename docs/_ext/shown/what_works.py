"""The matrix of what works inside a derivative: every case of `works_cases` by every recipe, judged by differences.

In a page, `.. what-works::` becomes the grid, and leaves the findings as JSON beside the page.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from docutils import nodes
from sphinx.application import Sphinx
from torch import Tensor

import funcdiff as fd
from _ext.pages.computed import Computed
from _ext.shown.grid import GREATEST, grid
from _ext.shown.works_cases import POINT, Case, cases
from funcdiff._safety.differences import Estimate, nan_outside, slope_along, stacked
from funcdiff._safety.examination import Examination, Verdict
from funcdiff._safety.modes import Modes
from funcdiff.checks.registry import RECIPES

_asked: ContextVar[bool] = ContextVar("_asked", default=False)


def as_written(mode: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mode on the function as it is written, where the differences are of what is meant."""

    def run(*args: Any) -> Tensor:
        torch.compiler.reset()  # after a few recompilations torch would run a compiled function as it is
        token = _asked.set(True)
        try:
            return mode(*args)
        finally:
            _asked.reset(token)

    return run


def _second_row(func: Any, x: Tensor) -> Tensor:
    return fd.batch_jacobian(func)(torch.stack([x + 0.05, x]))[1]


MODES = Modes(
    *(
        {name: as_written(mode) for name, mode in modes.items()}
        for modes in RECIPES._replace(jacobians=RECIPES.jacobians | {"batch_jacobian": _second_row})
    )
)


class _Examination(Examination):
    """Differences of what is meant alone, where that is not what is written."""

    @cached_property
    def hessian(self) -> Estimate:
        gradient = nan_outside(lambda x: fd.jacobian_loop(self.func)(x), self.jacobian.value)
        return stacked([slope_along(gradient, axis) for axis in self.axes])


def judge(case: Case) -> list[Verdict]:
    """A verdict on each recipe."""

    def subject(x: Tensor) -> Tensor:
        if _asked.get():
            return case.func(x)
        return (case.meant or case.func)(x.clone())  # a copy: differences bear a function that writes into its input

    examination = (_Examination if case.meant else Examination)(subject, len(POINT), modes=MODES)
    verdicts = examination.verdicts()
    return verdicts if examination.repeats else [_tried(verdict, case) for verdict in verdicts]


def _tried(verdict: Verdict, case: Case) -> Verdict:
    """Whether a recipe refuses a function that never repeats itself; more cannot be judged."""
    x, ones = torch.zeros_like(POINT), torch.ones_like(POINT)
    calls = {
        name: (lambda mode=mode: mode(lambda x: case.func(x).sum(), x, ones)) for name, mode in MODES.products.items()
    }
    for group in (MODES.jacobians, MODES.hessians, MODES.diagonals, MODES.laplacians):
        calls |= {name: (lambda mode=mode: mode(case.func, x)) for name, mode in group.items()}
    try:
        calls[verdict.mode]()
    except Exception as refusal:  # any refusal is a finding
        return replace(verdict, outcome="refuses", detail=f"{type(refusal).__name__}: {refusal}")
    return verdict


def matrix() -> dict[str, Any]:
    """The findings, in the atlas's form."""
    texts: dict[str, int] = {}
    entries = []
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an operation is slow under vmap is no finding here
        torch.manual_seed(0)
        for case in cases():
            modes = {verdict.mode: _found(verdict, texts) for verdict in judge(case)}
            entries.append({"kind": case.kind, "name": case.name, "modes": modes})
    names = [name for group in MODES for name in group]
    return {"torch": torch.__version__, "modes": names, "texts": list(texts), "entries": entries}


def as_atlas(found: dict[str, Any]) -> dict[str, Any]:
    """The findings as the atlas's grid reads its own: one sample each, texts in their place."""

    def told(verdict: dict[str, Any]) -> dict[str, Any]:
        return verdict | {"text": found["texts"][verdict["text"]]} if "text" in verdict else verdict

    entries = [
        entry | {"samples": [entry["name"]], "moving": [1], "modes": {m: told(v) for m, v in entry["modes"].items()}}
        for entry in found["entries"]
    ]
    return {"modes": {key: list(modes) for key, modes in zip(MODES._fields, MODES, strict=True)}, "entries": entries}


def _found(verdict: Verdict, texts: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {"outcome": verdict.outcome}
    if verdict.outcome == "wrong":
        found["error"] = float(f"{min(verdict.error, GREATEST):.2g}")
    elif verdict.detail:
        found["text"] = texts.setdefault(" ".join(verdict.detail.split())[:400], len(texts))
    return found


class WhatWorks(Computed):
    """The grid, with the atlas's search and style."""

    def compute(self) -> list[nodes.Node]:
        """The grid, and a link to the findings as JSON."""
        found = matrix()
        self.env.metadata[self.env.docname]["derivative-atlas"] = True
        target = Path(self.env.app.outdir, self.env.docname).with_suffix(".json")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1))
        made = f"Judged while this page was built: {len(found['entries'])} functions by {len(found['modes'])} recipes, "
        link = nodes.reference("", "as JSON", refuri=target.name, internal=True)
        text = nodes.Text(f"on torch {found['torch']}. The findings are also available ")
        line = nodes.paragraph("", made, text, link, nodes.Text("."), classes=["ran-on"])
        return [line, nodes.raw("", grid(as_atlas(found)), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("what-works", WhatWorks)
    return {"parallel_read_safe": True}
