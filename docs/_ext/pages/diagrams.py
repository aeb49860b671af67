"""Pictures of the modes, drawn into the page in its own colours: `.. diagram:: modes`."""

from __future__ import annotations

from html import escape

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

WIDTH, STEP, BOX = 760, 200, 84
LEFT = (WIDTH - 2 * STEP - BOX) // 2
TURN = LEFT + 3 * STEP - 2  # where the outer mode turns back


def _box(i: int, text: str) -> str:
    x = LEFT + i * STEP
    return f'<rect x="{x}" y="80" width="{BOX}" height="40" rx="4"/>{_text(x + BOX / 2, 106, text, "box")}'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def _arrow(x: float, to: float, y: float, kind: str) -> str:
    tip = -8 if to > x else 8
    return f'<path class="{kind}" d="M{x} {y}H{to}M{to + tip} {y - 5}L{to} {y}L{to + tip} {y + 5}"/>'


def _chain() -> list[str]:
    """The program: three boxes, the values between them."""
    parts = [_box(i, f"J{i + 1}") for i in range(3)]
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
        parts += [_text((start + end) / 2, y - 9 if y < 100 else y + 20, label, kind)]
    return parts


PICTURES = {
    "modes": (
        "Forward mode carries a tangent v along with the evaluation, from the input to the output, where it is J v. "
        "Reverse mode carries a cotangent u back, from the output to the input, where it is the transposed J times u.",
        [
            *_chain(),
            *_stream(["v", "J1 v", "J2 J1 v", "J v"], 50, "forward", back=False),
            *_stream(["Jᵀu", "J2ᵀJ3ᵀu", "J3ᵀu", "u"], 150, "reverse", back=True),
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
            f'<path class="forward" d="M{TURN} 50C{TURN + 34} 50 {TURN + 34} 190 {TURN} 190"/>',
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
