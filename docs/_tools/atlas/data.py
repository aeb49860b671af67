"""The derivative atlas as data: read, written, looked up.

A file holds "torch", "modes" by what they compute, "entries" and "reproductions". An entry has the numbers of the
samples that could be judged, how many tensors move in each, its operators, and a verdict on every mode: its "outcome"
(the gravest of the samples'), its "error" where wrong, its "text", and the "outcomes" by sample where they differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Atlas = dict[str, Any]
Entry = dict[str, Any]


def read(path: Path) -> Atlas:
    """The atlas at `path`, what was shortened for the file spelt out."""
    atlas: Atlas = json.loads(path.read_text())
    texts = atlas.pop("texts")
    for entry in atlas["entries"]:
        for mode, found in entry.get("modes", {}).items():
            if isinstance(found, str):
                entry["modes"][mode] = {"outcome": found}
            elif "text" in found:
                found["text"] = texts[found["text"]]
    return atlas


def written(atlas: Atlas) -> str:
    """As JSON with an entry a line, so that what changes between two torches shows in a diff; texts are numbered."""
    texts: dict[str, int] = {}
    lines = []
    for entry in atlas["entries"]:
        modes = {}
        for mode, found in entry.get("modes", {}).items():
            numbered = {"text": texts.setdefault(found["text"], len(texts))} if "text" in found else {}
            modes[mode] = found | numbered if len(found) > 1 else found["outcome"]
        lines.append(entry | ({"modes": modes} if modes else {}))
    file = atlas | {"texts": list(texts), "entries": lines}
    body = [
        f"{json.dumps(key)}: {_lines(value) if isinstance(value, list) else json.dumps(value)}"
        for key, value in file.items()
    ]
    return "{\n" + ",\n".join(body) + "\n}\n"


def _lines(values: list[Any]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, values)) + "\n]"


def mode_names(atlas: Atlas) -> list[str]:
    """All modes, in order."""
    return [name for names in atlas["modes"].values() for name in names]


def outcomes(entry: Entry, mode: str) -> list[str]:
    """What was found about `mode` on each sample of `entry`."""
    found = entry.get("modes", {}).get(mode)
    if found is None:
        return []
    return found.get("outcomes") or [found["outcome"]] * len(entry["samples"])


def wrong(entry: Entry) -> dict[str, float]:
    """The modes that are wrong on `entry`, each with its error."""
    return {mode: found["error"] for mode, found in entry.get("modes", {}).items() if found["outcome"] == "wrong"}
