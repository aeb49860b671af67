"""Judges every case of the atlas and writes the findings as JSON, and what they say of operators into the package.

`nox -s atlas` makes both anew; with names of modes after `--` it judges only those, and keeps what the first holds of
the others. For another torch, `nox -s atlas-of -- VERSION` judges less ("compared"): the recipes among which the
automatic ones choose. A run that was stopped goes on where it was, from the file beside the atlas that ends in
``.begun``: delete it where the package changed since. The automatic recipes come last, when it is known what to leave
out; where that changed they are judged again.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from _tools.atlas.blame import known_wrong, operators_in
from _tools.atlas.cases import INEXACT, Key, Sample, cases, samples
from _tools.atlas.data import Atlas, Entry, mode_names, outcomes, read, written
from _tools.atlas.journal import Journal
from _tools.atlas.modes import COMPARED, FIXED, MODES, NAMES, PLANNED
from _tools.atlas.quick import shapes_in_cpp
from _tools.atlas.repro import Suspect, reproductions
from funcdiff._safety.culprits import between_cubics
from funcdiff._safety.examination import Examination
from funcdiff._safety.verdicts import Verdict

DIRECTIONS = 2
GRAVEST = ("wrong", "refuses", "undecided", "right")
PROCESSES = 2
_PASSES = 5  # at most, until what is known and what is chosen by it agree

# An operator, and by case and sample the modes that it gets wrong and those that are right.
Culprit = tuple[str, dict[tuple[Key, int], tuple[list[str], list[str]]]]


Each = Callable[..., Iterable[Any]]  # `map`, or its like for processes


def judge(sample: Sample, only: Collection[str] = NAMES) -> list[Verdict]:
    """Verdicts on one sample, taken between two cubics so that tangents and cotangents depend on the input."""
    subject = sample.subject(DIRECTIONS)
    func = between_cubics(subject, torch.zeros(subject.size, dtype=torch.float64))
    return Examination(func, subject.size, modes=MODES).verdicts(only)


def entry(key: Key, only: Collection[str] = NAMES) -> Entry:
    """What was found on one case: which samples could be judged, what moves and computes in each, and the verdicts."""
    numbers, moving, names, judged, failures = [], [], [], [], []
    for number, sample in enumerate(() if key[1] in INEXACT else samples(key)):
        try:
            judged.append(judge(sample, only))
            names.append(sorted(operators_in(sample.func, sample.primals)))
            moving.append(len(sample.moving))
            numbers.append(number)
        except Exception as error:  # a sample that cannot be differentiated at all: complex, integer, random
            failures.append(_line(f"{type(error).__name__}: {error}", 300))
    found: Entry = {"kind": key[0], "name": key[1], "samples": numbers, "moving": moving, "operators": names}
    if not judged:
        inexact = "torch computes the values to seven digits only: differences cannot judge the derivatives"
        lacking = inexact if key[1] in INEXACT else "no sample in torch's database"
        return found | {"reason": failures[0] if failures else lacking}
    return found | {"modes": {column[0].mode: summary(column) for column in zip(*judged, strict=True)}}


def summary(verdicts: Collection[Verdict]) -> dict[str, Any]:
    """The verdicts on one mode over the samples: the gravest, its error or text; each of them where they differ."""
    gravest = min(verdicts, key=lambda v: (GRAVEST.index(v.outcome), -v.error))
    found: dict[str, Any] = {"outcome": gravest.outcome}
    if gravest.outcome == "wrong":
        found["error"] = float(f"{gravest.error:.2g}")
    if gravest.detail:
        found["text"] = _line(gravest.detail, 400)
    if len({verdict.outcome for verdict in verdicts}) > 1:
        found["outcomes"] = [verdict.outcome for verdict in verdicts]
    return found


def run(*keys: Key, only: Collection[str] = NAMES, kept: Atlas | None = None, each: Each = map) -> Atlas:
    """The atlas of these cases; where there is a `kept` one of the same torch, of its cases and other modes too."""
    if kept and kept["torch"] != torch.__version__:
        raise SystemExit(f"the atlas is of torch {kept['torch']}, this is {torch.__version__}: make it anew whole")
    entries = list(each(partial(entry, only=only), keys))
    judged = {*only, *(mode_names(kept) if kept else ())}
    return {
        "torch": torch.__version__,
        "modes": {kind: [name for name in group if name in judged] for kind, group in MODES._asdict().items()},
        "entries": _joined(kept["entries"], entries) if kept else entries,
        "reproductions": kept["reproductions"] if kept else [],
    }


def with_reproductions(atlas: Atlas, each: Each = map) -> Atlas:
    """The atlas with a script for every operator to blame and mode, as far as they are found."""
    return atlas | {"reproductions": [script for scripts in each(_scripts, culprits(atlas)) for script in scripts]}


def touched(atlas: Atlas, before: dict[str, Any], after: dict[str, Any]) -> list[Key]:
    """The cases with operators that were blamed before and are not now, or the reverse: other recipes are chosen."""
    changed = {
        name
        for mode in {*before["modes"], *after["modes"]}
        for name in set(before["modes"].get(mode, ())) ^ set(after["modes"].get(mode, ()))
    }
    entries = (e for e in atlas["entries"] if any(changed & set(names) for names in e["operators"]))
    return [(e["kind"], e["name"]) for e in entries]


def culprits(atlas: Atlas) -> Iterator[Culprit]:
    """Every operator that is to blame, with the samples where it is."""
    blamed = known_wrong(atlas)["modes"]
    for operator in sorted({name for names in blamed.values() for name in names}):
        places = {}
        for found in atlas["entries"]:
            for i, names in enumerate(found["operators"]):
                wrong = [m for m in blamed if operator in blamed[m] and outcomes(found, m)[i] == "wrong"]
                if wrong and operator in names:
                    right = [m for m in blamed if outcomes(found, m)[i] == "right"]
                    places[(found["kind"], found["name"]), found["samples"][i]] = (wrong, right)
        yield operator, places


def _scripts(culprit: Culprit) -> list[dict[str, Any]]:
    operator, places = culprit
    suspects = [Suspect(key[1], samples(key)[i], *modes) for (key, i), modes in places.items()]
    return list(reproductions(operator, sorted(suspects, key=lambda suspect: suspect.sample.size), MODES))


def _joined(old: list[Entry], new: list[Entry]) -> list[Entry]:
    """The old entries with the modes of the new; they must be of the same samples."""
    fresh = {(after["kind"], after["name"]): after for after in new}
    joined = []
    for before in old:
        after = fresh.get((before["kind"], before["name"]), before)
        if any(before[key] != after[key] for key in ("samples", "moving", "operators")):
            raise SystemExit(f"the samples of {before['name']} changed: make the atlas anew whole")
        both = before.get("modes", {}) | after.get("modes", {})
        joined.append(before | ({"modes": {name: both[name] for name in NAMES if name in both}} if both else {}))
    return joined


def _line(text: str, length: int) -> str:
    return " ".join(text.split())[:length]


def _quiet() -> None:
    warnings.simplefilter("ignore")  # torch's own samples warn by the dozen
    torch.set_num_threads(1)
    shapes_in_cpp()


def settled(made: Atlas, before: dict[str, Any], known: Path) -> Atlas:
    """The atlas with the recipes that read `known` judged by what the atlas itself says; `known` written."""
    planned = [mode for mode in PLANNED if mode in mode_names(made)]
    for _ in range(_PASSES):
        after = _known(made, known)
        if not planned or not (again := touched(made, before, after)):
            return made
        with pool() as processes:  # new ones, which read what is known now
            made = run(*again, only=planned, kept=made, each=processes.map)
        before = after
    raise SystemExit("recipes that are right by what is known make known what makes them wrong: see to the choice")


def _known(made: Atlas, known: Path) -> dict[str, Any]:
    found = known_wrong(made)
    known.write_text(json.dumps(found, indent=1) + "\n")
    return found


def pool(processes: int = PROCESSES) -> ProcessPoolExecutor:
    """Processes, each on one core."""
    return ProcessPoolExecutor(processes, get_context("spawn"), _quiet)


def _main(atlas: Path, folder: Path, *named: str) -> None:
    known = folder / f"{'.'.join(torch.__version__.split('.')[:2])}.json"
    before = json.loads(known.read_text()) if known.exists() else {"modes": {}}
    every, some = COMPARED if "compared" in named else NAMES, set(named) - {"compared"}
    made = read(atlas) if some else None
    if lacking := set(every) - (some or set(every)) - set(mode_names(made) if made else ()):
        raise SystemExit(f"the atlas lacks {', '.join(sorted(lacking))}: name these too, or make it anew whole")
    stages = [[name for name in stage if name in every and (not some or name in some)] for stage in (FIXED, PLANNED)]
    journals = []
    for stage, modes in zip(("fixed", "planned"), stages, strict=True):
        if modes:
            file = atlas.with_suffix(f".{stage}.begun")
            journals.append(Journal(file, {"torch": torch.__version__, "modes": modes}))
            each = partial(journals[-1].each, pool=pool, processes=PROCESSES)
            made = run(*cases(), only=modes, kept=made, each=each)
            if stage == "fixed" and stages[1]:
                before = _known(made, known)  # for the others to read
    assert made is not None
    made = settled(made, before, known)
    with pool() as processes:
        atlas.write_text(written(with_reproductions(made, processes.map)))
    for journal in journals:
        journal.close()


if __name__ == "__main__":
    _main(*map(Path, sys.argv[1:3]), *sys.argv[3:])
