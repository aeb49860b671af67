"""What changed between versions of torch: short scripts, with what each prints in every version.

`nox -s atlas-of -- 2.15.0` adds scripts for what the atlas of that torch finds otherwise than the site's atlas, and
runs all of them. After that, each other torch runs those that it has not seen: `nox -s atlas-of -- 2.14.1 scripts`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _tools.atlas.cases import samples
from _tools.atlas.data import Atlas, Entry, mode_names, outcomes, read
from _tools.atlas.repro import Suspect
from _tools.atlas.scripts import EXPRESSIONS, LONGEST, differ, imported, numbers, outcome, writers

PINNED = Path("docs/reference/atlas.json")
_UNSTEADY = {"linalg_lu_solve"}  # reads memory that nobody wrote: its verdicts differ from run to run
_SMALL = 1e-3

Script = dict[str, Any]


def of_faults(atlas: Atlas) -> Iterator[Script]:
    """The atlas's own scripts, one for each recipe that is wrong."""
    for found in (found for found in atlas["reproductions"] if found["operator"] not in _UNSTEADY):
        shown = found["modes"][0]
        for mode in found["modes"]:
            if script := _by(mode, shown, found["script"]):
                yield {"operator": found["operator"], "operation": found["operation"], "mode": mode, "script": script}


def _by(mode: str, shown: str, script: str) -> str:
    """The script with another recipe in the place of the one that it shows."""
    for x in "txyzwuv":
        old, new = EXPRESSIONS[shown].format(x), EXPRESSIONS[mode].format(x)
        if old in script:
            first, _, rest = script.replace(old, new).split("\n", 2)
            return "\n".join([first, f"from torch.func import {imported(new)}", rest])
    return ""


def of_formulas(here: Atlas, there: Atlas) -> Iterator[Script]:
    """A script for each recipe that is right with this torch on an operator where it is refused by the other."""
    others = {(entry["kind"], entry["name"]): entry for entry in there["entries"]}
    modes = [mode for mode in mode_names(here) if mode in EXPRESSIONS and mode in mode_names(there)]
    for entry in here["entries"]:
        before = others.get((entry["kind"], entry["name"]), {})
        new = [mode for mode in modes if _outcome(before, mode) == "refuses" and _outcome(entry, mode) == "right"]
        if new and entry["kind"] == "operator":
            yield from _formulas(entry, new)


def _outcome(entry: Entry, mode: str) -> str:
    return str(entry.get("modes", {}).get(mode, {}).get("outcome", ""))


def _formulas(entry: Entry, new: list[str]) -> Iterator[Script]:
    """The shortest found; an operation that has no tensor to move, or cannot be written down, has none."""
    drawn = samples((entry["kind"], entry["name"]))
    suspects = [
        Suspect(entry["name"], drawn[number], [], new)
        for i, number in enumerate(entry["samples"])
        if all(outcomes(entry, mode)[i] == "right" for mode in new)
    ]
    for suspect in sorted(suspects, key=lambda suspect: suspect.sample.size):
        for operation in suspect.operations():
            for write in writers(operation) if operation.call is suspect.sample.call else ():
                found = {mode: numbers(write(mode)) for mode in new}
                if all(pair and _shows(*pair) and len(write(mode)) <= LONGEST for mode, pair in found.items()):
                    for mode in new:
                        yield {
                            "operator": entry["name"],
                            "operation": operation.name,
                            "mode": mode,
                            "script": write(mode),
                        }
                    return


def _shows(expected: Tensor, obtained: Tensor) -> bool:
    """Whether they agree on a derivative that is not nearly zero."""
    return not differ(expected, obtained) and bool(expected.abs().max() > _SMALL)


def added(changes: dict[str, Any], scripts: Iterator[Script]) -> None:
    """Keep the shortest script of each operation and recipe."""
    kept = {(s["operation"], s["mode"]): s for s in changes["scripts"]}
    for script in scripts:
        key = script["operation"], script["mode"]
        if key not in kept:
            kept[key] = script | {"printed": {}}
    changes["scripts"] = list(kept.values())


def run(changes: dict[str, Any]) -> None:
    """What this torch prints, of every script."""
    version = torch.__version__.partition("+")[0]
    for script in changes["scripts"]:
        script["printed"][version] = outcome(script["script"])


def written(changes: dict[str, Any]) -> str:
    """As JSON with a script a line."""
    lines = ",\n".join(json.dumps(script) for script in changes["scripts"])
    return f'{{"scripts": [\n{lines}\n]}}\n'


def _main(path: Path, *atlases: str) -> None:
    changes = json.loads(path.read_text()) if path.exists() else {"scripts": []}
    for atlas in map(read, map(Path, atlases)):
        pinned = read(PINNED)
        added(changes, of_faults(pinned))
        added(changes, of_faults(atlas))
        added(changes, of_formulas(atlas, pinned))
    run(changes)
    path.write_text(written(changes))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
