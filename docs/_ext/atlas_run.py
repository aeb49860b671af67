"""Judges every case of the atlas and writes the findings as JSON.

`python docs/_ext/atlas_run.py docs/reference/atlas.json` makes it anew; with names after it, of those cases alone.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from atlas_cases import Sample, cases
from atlas_repro import EXPRESSIONS, reproduction
from torch.func import vmap

import funcdiff
from funcdiff._judging import Examination, Verdict
from funcdiff._modes import RECIPES, Modes
from funcdiff._operations import between_cubics, operations, wrong_alone

DIRECTIONS = 3
GRAVEST = ("wrong", "refuses", "undecided", "right")


def _under_vmap(recipe: Any) -> Any:
    """The derivative at the second of two points: what vmap makes of the recipe."""
    return lambda func, x: vmap(recipe(func))(torch.stack([x + 0.1, x]))[1]


def _one_by_one(recipe: Any) -> Any:
    return lambda func, x: recipe(func, chunk_size=1)(x)


def _modes() -> Modes:
    jacobians = {name: getattr(funcdiff, name) for name in RECIPES.jacobians}
    hessians = {name: getattr(funcdiff, name) for name in RECIPES.hessians}
    return Modes(
        RECIPES.jacobians
        | {f"{name}, chunk_size=1": _one_by_one(recipe) for name, recipe in jacobians.items()}
        | {f"{name}, vmap": _under_vmap(recipe) for name, recipe in jacobians.items()},
        RECIPES.hessians | {f"{name}, chunk_size=1": _one_by_one(recipe) for name, recipe in hessians.items()},
        RECIPES.products,
    )


MODES = _modes()


def judge(sample: Sample) -> list[Verdict]:
    """Verdicts on one sample, taken between two cubics so that tangents and cotangents depend on the input."""
    subject = sample.subject(DIRECTIONS)
    func = between_cubics(subject, torch.zeros(subject.size, dtype=torch.float64))
    return Examination(func, subject.size, modes=MODES).verdicts()


def judge_or_first_alone(sample: Sample) -> tuple[Sample, list[Verdict]]:
    """Verdicts with every tensor moving; with the first alone where torch gives another no derivative at all."""
    try:
        return sample, judge(sample)
    except RuntimeError as error:
        if "not differentiable with respect to" not in str(error):
            raise
        return sample.first_alone(), judge(sample.first_alone())


def reproduce(sample: Sample, verdicts: list[Verdict], known: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Scripts for what is wrong on `sample` and not yet known of an operation in it."""
    wrong = [v.mode for v in verdicts if v.outcome == "wrong" and v.mode in EXPRESSIONS]
    right = [v.mode for v in verdicts if v.outcome == "right"]
    subject = sample.subject(DIRECTIONS)
    for operation in operations(subject, subject.size) if wrong else ():
        news = [mode for mode in wrong if (operation.name, mode) not in known]
        alone = wrong_alone(operation, news, MODES) if news else []
        for mode in alone:
            if (operation.name, mode) not in known and (script := reproduction(operation, mode, alone, right)):
                known.update((operation.name, also) for also in script["modes"])
                yield {"operation": operation.name, **script}


def summary(verdicts: list[Verdict], texts: dict[str, int]) -> dict[str, Any] | str:
    """The verdicts on one mode over the samples: the gravest, with its text by number, and how often each was given."""
    gravest = min(verdicts, key=lambda v: (GRAVEST.index(v.outcome), -v.error))
    counts = Counter(verdict.outcome for verdict in verdicts)
    found: dict[str, Any] = {"outcome": gravest.outcome}
    if gravest.outcome == "wrong":
        found["error"] = float(f"{gravest.error:.2g}")
    if gravest.detail:
        found["text"] = texts.setdefault(" ".join(gravest.detail.split())[:400], len(texts))
    if len(counts) > 1:
        found["counts"] = dict(counts)
    return found if len(found) > 1 else gravest.outcome


def run(*only: str) -> dict[str, Any]:
    """The atlas: every case, or `only` those of the given names."""
    entries, scripts = [], []
    known: set[tuple[str, str]] = set()
    texts: dict[str, int] = {}
    for kind, name, samples in cases(*only):
        judged, failures = [], []
        for sample in samples:
            try:
                sample, verdicts = judge_or_first_alone(sample)
            except Exception as error:  # a sample that cannot be differentiated at all: complex, integer, random
                failures.append(f"{type(error).__name__}: {error}")
                continue
            judged.append(verdicts)
            scripts += [{"case": name, **script} for script in reproduce(sample, verdicts, known)]
        entry: dict[str, Any] = {"kind": kind, "name": name, "samples": len(judged)}
        if judged:
            entry["modes"] = {column[0].mode: summary(list(column), texts) for column in zip(*judged, strict=True)}
        else:
            entry["reason"] = " ".join(failures[0].split())[:300]
        entries.append(entry)
    made = {"torch": torch.__version__, "modes": mode_names(), "texts": list(texts)}
    return made | {"entries": entries, "reproductions": scripts}


def written(findings: dict[str, Any]) -> str:
    """As JSON with an entry a line, so that what changes between two torches shows in a diff."""
    parts = []
    for key, value in findings.items():
        many = isinstance(value, list) and key != "modes"
        body = "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]" if many else json.dumps(value)
        parts.append(f'"{key}": {body}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def mode_names() -> list[str]:
    """The columns of the table."""
    return [name for group in MODES for name in group]


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own samples warn by the dozen
    torch.set_num_threads(1)
    Path(sys.argv[1]).write_text(written(run(*sys.argv[2:])))
