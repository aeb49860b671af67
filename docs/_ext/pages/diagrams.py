"""Pictures of the modes, drawn into the page in its own colours: `.. diagram:: modes`."""

from __future__ import annotations

import re
from html import escape

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

WIDTH, STEP, BOX, CELL = 760, 200, 84, 36
LEFT = (WIDTH - 2 * STEP - BOX) // 2
TURN = LEFT + 3 * STEP - 2  # where the outer mode turns back


def _box(i: int, text: str) -> str:
    x = LEFT + i * STEP
    return f'<rect x="{x}" y="80" width="{BOX}" height="40" rx="4"/>{_text(x + BOX / 2, 106, text, "box")}'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{_formula(text)}</text>'


def _formula(text: str) -> str:
    """The letter after ^ is set above the line, that after _ below it, both smaller."""
    spans, level = [], 0
    for part in filter(None, re.split(r"([_^]\w)", text)):
        to, size = {"_": (5, ' font-size="80%"'), "^": (-7, ' font-size="80%"')}.get(part[0], (0, ""))
        spans.append(f'<tspan dy="{to - level}"{size}>{escape(part.lstrip("_^"))}</tspan>')
        level = to
    return "".join(spans) if "^" in text or "_" in text else escape(text)


def _arrow(x: float, to: float, y: float, kind: str) -> str:
    tip = -8 if to > x else 8
    return f'<path class="{kind}" d="M{x} {y}H{to}M{to + tip} {y - 5}L{to} {y}L{to + tip} {y + 5}"/>'


def _chain() -> list[str]:
    """The program: three boxes, the values between them."""
    parts = [_box(i, f"J_{i + 1}") for i in range(3)]
    for i in range(4):
        start = LEFT + (i - 1) * STEP + BOX
        parts += [_arrow(start + 6, start + STEP - BOX - 6, 100, "value")]
    return [*parts, _text(LEFT - STEP + BOX + 40, 90, "x"), _text(WIDTH - LEFT + STEP - BOX - 40, 90, "y")]


def _stream(labels: list[str], y: float, kind: str, back: bool) -> list[str]:
    """What travels along the program, a label at each gap."""
    parts = []
    for i, label in enumerate(labels):
        start, end = LEFT + (i - 1) * STEP + BOX + 6, LEFT + i * STEP - 6
        parts += [_arrow(end, start, y, kind) if back else _arrow(start, end, y, kind)]
        parts += [_text((start + end) / 2, y - 9 if y < 100 else y + 24, label, kind)]
    return parts


def _grid(x: float, y: float, texts: list[list[str]], marked: set[tuple[int, int]], kind: str) -> list[str]:
    """A matrix of cells with their entries, from its upper left corner; the marked ones are of that kind."""
    parts = []
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            left, top = x + j * CELL, y + i * CELL
            style = f' class="{kind}"' if (i, j) in marked else ""
            parts.append(f'<rect{style} x="{left}" y="{top}" width="{CELL}" height="{CELL}"/>')
            parts += [_text(left + CELL / 2, top + 0.66 * CELL, text, "entry")] if text else []
    return parts


def _panel(middle: float, marked: set[tuple[int, int]], kind: str, title: str, result: str) -> list[str]:
    """The Jacobian of the course with some of its entries marked, a title above and the result below."""
    entries = [["2", "3", "0"], ["0", "0", "1"]]
    left = middle - 1.5 * CELL
    return [_text(middle, 45, title, "code"), *_grid(left, 68, entries, marked, kind), _text(middle, 172, result)]


def _blocks(x: float, y: float, shape: tuple[int, int], copies: int, label: str) -> list[str]:
    """Equal blocks side by side, and their label below."""
    rows, columns = shape
    parts = []
    for copy in range(copies):
        parts += _grid(x + copy * (columns * CELL + 8), y, [[""] * columns] * rows, set(), "")
    width = copies * columns * CELL + (copies - 1) * 8
    return [*parts, _text(x + width / 2, y + rows * CELL + 22, label, "code")]


PICTURES = {
    "products": (
        "Three copies of the Jacobian with rows 2, 3, 0 and 0, 0, 1. A vjp gives its second row. A jvp gives its first "
        "column. vmap over vjp gives all rows at once.",
        [
            *_panel(125, {(1, 0), (1, 1), (1, 2)}, "reverse", "vjp, u = (0, 1)", "u^T J, a row"),
            *_panel(380, {(0, 0), (1, 0)}, "forward", "jvp, v = (1, 0, 0)", "Jv, a column"),
            *_panel(635, {(i, j) for i in range(2) for j in range(3)}, "reverse", "vmap of vjp", "J, all rows at once"),
        ],
    ),
    "pytree": (
        "A dictionary of a weight of shape (2, 3) and a bias of shape (2,). The Jacobian of two outputs is a "
        "dictionary with a block of shape (2, 2, 3) for the weight and one of shape (2, 2) for the bias.",
        [
            *_blocks(30, 68, (2, 3), 1, "weight (2, 3)"),
            *_blocks(205, 68, (2, 1), 1, "bias (2,)"),
            _arrow(300, 390, 104, "forward"),
            _text(345, 92, "jacrev", "code"),
            *_blocks(430, 68, (2, 3), 2, "weight (2, 2, 3)"),
            *_blocks(670, 68, (2, 1), 2, "bias (2, 2)"),
        ],
    ),
    "modes": (
        "Forward mode carries a tangent v along with the evaluation, from the input to the output, where it is J v. "
        "Reverse mode carries a cotangent u back, from the output to the input, where it is the transposed J times u.",
        [
            *_chain(),
            *_stream(["v", "J_1 v", "J_2 J_1 v", "J v"], 50, "forward", back=False),
            *_stream(["J^T u", "J_2^T J_3^T u", "J_3^T u", "u"], 150, "reverse", back=True),
        ],
    ),
    "composition": (
        "Forward over reverse: the inner mode goes to the output and back, and makes the gradient g. The outer mode "
        "carries a tangent v along that whole way, from the input to the output and back again, where it is H v.",
        [
            *_chain(),
            *_stream(["g", "", "", "1"], 150, "reverse", back=True),
            *_stream(["v", "", "", ""], 50, "forward", back=False),
            *_stream(["Hv", "", "", ""], 190, "forward", back=True),
            f'<path class="forward" d="M{TURN} 50C{TURN + 28} 50 {TURN + 28} 190 {TURN} 190"/>',
        ],
    ),
}


def picture(name: str) -> str:
    """The SVG of that name, its description as alternative text."""
    told, parts = PICTURES[name]
    return (
        '<div class="diagram table-wrapper" role="region" aria-label="picture">'
        f'<svg viewBox="0 0 {WIDTH} 220" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg></div>'
    )


class Diagram(Directive):
    """`.. diagram:: name`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The picture of that name."""
        return [nodes.raw("", picture(self.arguments[0]), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("diagram", Diagram)
    return {"parallel_read_safe": True}
