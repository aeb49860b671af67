"""The `torch-changes` directive: what each version of torch differentiates otherwise than the last, with scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from _ext.pages.tables import table
from _ext.shown.grid import VARIANTS

Script = dict[str, Any]
KINDS = {  # by the verdicts before and after
    "Fixed": (("wrong", "right"),),
    "Newly wrong": (("right", "wrong"), ("refuses", "wrong")),
    "An error instead of a wrong result": (("wrong", "refuses"),),
    "New formulas": (("refuses", "right"),),
    "No longer supported": (("right", "refuses"),),
}
_SEEN = {"right": "right", "wrong": "wrong", "refuses": "an error"}
_NEW = "has no attribute"  # what Python says of an operation that came with a later torch


def load(path: Path) -> list[Script]:
    """The scripts; one that a version has not run fails the build."""
    scripts: list[Script] = json.loads(path.read_text())["scripts"]
    every = {version for script in scripts for version in script["printed"]}
    for script in scripts:
        if lacking := every - set(script["printed"]):
            raise ExtensionError(
                f"{path.name}: torch {', '.join(sorted(lacking))} has not run the script of {script['operation']}: "
                "run `nox -s atlas-of -- VERSION scripts`"
            )
    return scripts


def versions(scripts: list[Script]) -> list[str]:
    """All versions, the oldest first."""
    found = {version for script in scripts for version in script["printed"]}
    return sorted(found, key=lambda version: [*map(int, version.split("."))])


def changed(scripts: list[Script], before: str, after: str, kind: str) -> dict[str, list[Script]]:
    """By operation, the scripts whose verdict changed in this way between two versions, the shortest first."""
    found: dict[str, list[Script]] = {}
    for script in scripts:
        first, then = script["printed"][before], script["printed"][after]
        new = first["outcome"] == "refuses" and _NEW in first["text"] and then["outcome"] == "right"
        if (first["outcome"], then["outcome"]) in KINDS[kind] and not new:
            found.setdefault(script["operation"], []).append(script)
    return {name: sorted(same, key=lambda script: len(script["script"])) for name, same in sorted(found.items())}


class TorchChanges(SphinxDirective):
    """`.. torch-changes:: changes.json`, the path relative to the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A table of how many operations changed, and each change with a script."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        scripts = load(Path(path))
        steps = [*pairwise(versions(scripts))]
        found = {(step, kind): changed(scripts, *step, kind) for step in steps for kind in KINDS}
        kinds = [kind for kind in KINDS if any(found[step, kind] for step in steps)]
        rows = [[f"{a} to {b}", *(str(len(found[(a, b), kind])) for kind in kinds)] for a, b in steps]
        return [
            *self.parse_text_to_nodes(summary(scripts, steps, found)),
            table(["torch", *kinds], rows),
            *(node for step in steps for node in section(step, {kind: found[step, kind] for kind in kinds})),
        ]


def summary(scripts: list[Script], steps: list[tuple[str, str]], found: dict[Any, dict[str, list[Script]]]) -> str:
    """A sentence on what was compared, and one on what came out."""
    every = versions(scripts)
    fixed = {name for step in steps for name in found[step, "Fixed"]}
    worse = {name for step in steps for name in found[step, "Newly wrong"]}
    more = f" Derivatives of {len(worse)} operations became wrong." if worse else ""
    return (
        f"This page compares torch {', '.join(every[:-1])} and {every[-1]}. From the first to the last, wrong "
        f"derivatives of {len(fixed)} operations were fixed.{more} The table counts the operations that changed in "
        "each step."
    )


def section(step: tuple[str, str], kinds: dict[str, dict[str, list[Script]]]) -> Iterator[nodes.Node]:
    """A heading for the step, and below it each kind of change with its operations."""
    before, after = step
    yield nodes.rubric(text=f"From torch {before} to {after}")
    if not any(kinds.values()):
        yield nodes.paragraph("", "No script has another verdict in these two versions.")
    for kind, operations in kinds.items():
        if operations:
            yield nodes.paragraph("", "", nodes.strong(text=f"{kind}: {len(operations)}"))
        for operation, scripts in operations.items():
            yield from entry(operation, scripts)


def entry(operation: str, scripts: list[Script]) -> Iterator[nodes.Node]:
    """The recipes that changed on an operation, the shortest script, and what it prints in each version."""
    shortest = scripts[0]
    title = f"<code>{escape(operation)}</code>: {escape(', '.join(named(script['mode']) for script in scripts))}"
    yield nodes.raw("", f"<details class='torch-change'><summary>{title}</summary>", format="html")
    if len(scripts) > 1:
        yield nodes.paragraph("", f"The script shows {named(shortest['mode'])}.")
    yield nodes.literal_block(shortest["script"], shortest["script"], language="python")
    rows = [[version, *_printed(shortest["printed"][version])] for version in versions([shortest])]
    yield table(["torch", "verdict", "expected", "obtained"], rows, [2, 2, 3, 3])
    errors: dict[str, list[str]] = {}
    for version in versions([shortest]):
        if text := shortest["printed"][version].get("text"):
            errors.setdefault(text, []).append(version)
    for text, those in errors.items():
        yield nodes.paragraph("", f"The error of torch {' and '.join(those)}: {text}")
    yield nodes.raw("", "</details>", format="html")


def named(mode: str) -> str:
    """A recipe and its variant in words: `hessian_taylor in a batch`."""
    recipe, _, variant = mode.partition(", ")
    return f"{recipe} {VARIANTS.get(variant, variant)}".rstrip()


def _printed(printed: dict[str, str]) -> list[str]:
    return [_SEEN[printed["outcome"]], printed.get("expected", "–"), printed.get("obtained", "–")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("torch-changes", TorchChanges)
    return {"parallel_read_safe": True}
