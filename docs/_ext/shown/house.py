"""The `house` directive: the rooms of the package and the imports between them, read from the sources."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from _ext.gallery.tutorials import GALLERY, ROOT
from _ext.pages.tables import table

PACKAGE = ROOT / "src" / "funcdiff"
FACE = "funcdiff"  # the public names, in the package's own `__init__`
TUTORIALS = "gallery"
WIDTH, FLOOR, BOX, HEIGHT = 760, 84, 124, 38

Imports = dict[str, set[str]]


def room_of(file: Path) -> str:
    """The folder or module at the top of the package that a file belongs to."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return FACE if first == "__init__" else first


def _imported(file: Path, rooms: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for package, room, *_ in (f"{path}.{FACE}".split(".") for path in paths):
            if package == "funcdiff":
                yield room if room in rooms else FACE


def imports() -> Imports:
    """Which rooms each room imports; the tutorials, which import the package, are one more."""
    files = sorted(PACKAGE.rglob("*.py"))
    rooms = {room_of(file) for file in files}
    found: Imports = {TUTORIALS: set()} | {room: set() for room in sorted(rooms)}
    for file in files:
        found[room_of(file)] |= set(_imported(file, rooms)) - {room_of(file)}
    for file in sorted(GALLERY.rglob("*.py")):
        found[TUTORIALS] |= set(_imported(file, rooms))
    return found


def floors(found: Imports) -> dict[str, int]:
    """The floor of each room, from the top: below every room that imports it. A circle has none and fails the build."""
    floor: dict[str, int] = {}
    while rest := [room for room in found if room not in floor]:
        above = {room: [other for other in found if room in found[other]] for room in rest}
        free = [room for room in rest if all(other in floor for other in above[room])]
        if not free:
            raise ExtensionError(f"src/funcdiff: rooms import each other in a circle, among {', '.join(rest)}")
        floor |= {room: max((floor[other] + 1 for other in above[room]), default=0) for room in free}
    return floor


def arrows(found: Imports) -> list[tuple[str, str]]:
    """The imports from one room to another, without those to a room that is reached through others as well."""

    def reached(room: str) -> set[str]:
        return found[room].union(*map(reached, found[room]))

    return [
        (room, other)
        for room in found
        for other in sorted(found[room])
        if not any(other in reached(between) for between in found[room] - {other})
    ]


def places(found: Imports) -> tuple[dict[str, tuple[float, float]], list[list[str]]]:
    """Where each room stands, and the points that each arrow passes: one on every floor, so that it crosses no room."""
    floor = floors(found)
    lines = [
        [room, *(f"{room}>{other}@{level}" for level in range(floor[room] + 1, floor[other])), other]
        for room, other in arrows(found)
    ]
    levels = [[room for room in found if floor[room] == level] for level in range(max(floor.values()) + 1)]
    for line in lines:
        for level, point in enumerate(line[1:-1], start=floor[line[0]] + 1):
            levels[level].append(point)
    x = {point: place for level in levels for point, place in _across(level).items()}
    # Each point moves towards those it is joined to on the floor above, then below: a few rounds untangle the arrows.
    for step in range(12):
        for level in levels if step % 2 == 0 else levels[::-1]:
            joined = {
                point: [x[line[i - 1 + 2 * (step % 2)]] for line in lines for i in _inside(line, point, step % 2)]
                for point in level
            }
            level.sort(key=lambda point, joined=joined: sum(joined[point] or [x[point]]) / len(joined[point] or [1]))
            x |= _across(level)
    y = {point: FLOOR * i + HEIGHT / 2 + 4 for i, level in enumerate(levels) for point in level}
    return {point: (x[point], y[point]) for point in x}, lines


def _inside(line: list[str], point: str, down: int) -> list[int]:
    return [i for i, other in enumerate(line) if other == point and 0 <= i - 1 + 2 * down < len(line)]


def _across(level: list[str]) -> dict[str, float]:
    """The middles of a floor's rooms, as wide as there is room for; an arrow that passes takes a quarter of a room."""
    ends = list(itertools.accumulate(0.25 if ">" in point else 1 for point in level))
    return {
        point: WIDTH * (start + end) / 2 / ends[-1] for point, start, end in zip(level, [0, *ends], ends, strict=False)
    }


def picture(found: Imports) -> str:
    """The SVG: a box a room, an arrow to what it imports."""
    at, lines = places(found)
    parts = [_arrow([at[point] for point in line]) for line in lines]
    for room in found:
        x, y = at[room]
        parts.append(f'<rect x="{x - BOX / 2:g}" y="{y - HEIGHT / 2:g}" width="{BOX}" height="{HEIGHT}" rx="4"/>')
        parts.append(f'<text x="{x:g}" y="{y + 6:g}" text-anchor="middle">{escape(room)}</text>')
    height = max(y for _, y in at.values()) + HEIGHT / 2 + 4
    told = "; ".join(f"{room} imports {', '.join(sorted(found[room]))}" for room in found if found[room])
    return (
        '<div class="house table-wrapper" role="region" aria-label="picture" tabindex="0">'
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg></div>'
    )


def _arrow(points: list[tuple[float, float]]) -> str:
    (x, y), *passed = points
    y += HEIGHT / 2
    path = f"M{x:g} {y:g}"
    for i, (to, level) in enumerate(passed):
        end = level - (HEIGHT / 2 if i == len(passed) - 1 else 0)
        bend = (end - y) / 2
        path += f"C{x:g} {y + bend:g} {to:g} {end - bend:g} {to:g} {end:g}"
        x, y = to, end
    return f'<path d="{path}M{x - 5:g} {y - 8:g}L{x:g} {y:g}L{x + 5:g} {y - 8:g}"/>'


def spoken(text: str) -> list[nodes.Node]:
    """A line of a docstring, with what stands in backticks as code."""
    parts = text.split("`")
    return [nodes.literal("", part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


def held(room: str) -> str:
    """What a room holds: the first line of its docstring."""
    if room == TUTORIALS:
        return "The tutorials. They import what a user imports, and nothing private."
    file = PACKAGE / ("__init__.py" if room == FACE else f"{room}.py")
    file = file if file.exists() else PACKAGE / room / "__init__.py"
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


class House(SphinxDirective):
    """`.. house::`."""

    def run(self) -> list[nodes.Node]:
        """The picture, and what each room holds, from the top floor down."""
        for file in PACKAGE.rglob("*.py"):
            self.env.note_dependency(str(file))
        found = imports()
        floor = floors(found)
        rows = [
            [nodes.literal("", room), nodes.inline("", "", *spoken(held(room)))]
            for room in sorted(found, key=lambda room: floor[room])
        ]
        return [nodes.raw("", picture(found), format="html"), table(["room", "what it holds"], rows, [1, 4])]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("house", House)
    return {"parallel_read_safe": True}
