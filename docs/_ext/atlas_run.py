"""Judges every case of the atlas and writes the findings as JSON: `python docs/_ext/atlas_run.py docs/reference/atlas.json`."""

from __future__ import annotations

import json
import platform
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from atlas_cases import Sample, cases
from torch.func import vmap

from funcdiff._judging import Examination, Verdict
from funcdiff._modes import RECIPES, Function, Modes
from funcdiff._operations import between_cubics
from funcdiff._subject import Subject

DIRECTIONS = 3
GRAVEST = ("wrong", "refuses", "undecided", "right")


def _under_vmap(mode: Any) -> Any:
    """The Jacobian at the second of two points: what vmap makes of the mode."""
    return lambda func, x: vmap(lambda row: mode(func, row))(torch.stack([x + 0.1, x]))[1]


def _modes() -> Modes:
    more = {f"{name}, vmap": _under_vmap(mode) for name, mode in RECIPES.jacobians.items()}
    return Modes(RECIPES.jacobians | more, RECIPES.hessians, RECIPES.products)


MODES = _modes()


def judge(sample: Sample) -> list[Verdict]:
    """Verdicts on one sample, taken between two cubics so that tangents and cotangents depend on the input."""
    with torch.random.fork_rng(devices=[]):
        subject = Subject(sample.func, sample.primals, DIRECTIONS, seed=0)
        func: Function = between_cubics(subject, torch.zeros(subject.size, dtype=torch.float64))
        return Examination(func, subject.size, modes=MODES).verdicts()


def summary(verdicts: list[Verdict]) -> dict[str, Any]:
    """The verdicts on one mode over the samples: the gravest, with its text, and how often each was given."""
    gravest = min(verdicts, key=lambda v: (GRAVEST.index(v.outcome), -v.error))
    counts = Counter(verdict.outcome for verdict in verdicts)
    found: dict[str, Any] = {"outcome": gravest.outcome}
    if gravest.outcome == "wrong":
        found["error"] = float(f"{gravest.error:.2g}")
    if gravest.detail:
        found["detail"] = " ".join(gravest.detail.split())[:400]
    if len(counts) > 1:
        found["counts"] = dict(counts)
    return found


def run(only: str = "") -> dict[str, Any]:
    """The atlas: every case whose name contains `only`."""
    entries = []
    for kind, name, samples in cases():
        if only not in name:
            continue
        judged, failures = [], []
        for sample in samples:
            try:
                judged.append(judge(sample))
            except Exception as error:  # a sample that cannot be differentiated at all: complex, integer, not finite
                failures.append(f"{type(error).__name__}: {error}")
        entry: dict[str, Any] = {"kind": kind, "name": name, "samples": len(judged)}
        if judged:
            entry["modes"] = {column[0].mode: summary(list(column)) for column in zip(*judged, strict=True)}
        else:
            entry["reason"] = " ".join(failures[0].split())[:300]
        entries.append(entry)
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "modes": list(_names()),
        "entries": entries,
    }


def _names() -> list[str]:
    return [name for group in MODES for name in group]


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own samples warn by the dozen
    torch.set_num_threads(1)
    Path(sys.argv[1]).write_text(json.dumps(run(*sys.argv[2:]), indent=1) + "\n")
