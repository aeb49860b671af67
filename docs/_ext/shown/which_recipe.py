"""Which recipe? `.. which-recipe::` makes a picture and a table of the answers.

The picture is drawn into the page, in the page's own colours, so that it follows light and dark. A test compares each
answer with the recipe finder and with the package, on every question that the answer is about.
"""

from __future__ import annotations

import itertools
from html import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import funcdiff
from _ext.shown.recipe_answers import ANSWERS, Answer
from funcdiff import distributed

SUMMARY = "The same as a table, with costs and links"
ROW, BOX, TOP = 34, 26, 24
NEED, WHEN, RECIPE = (0, 228), (254, 312), (592, 264)  # left edge and width of the columns


def picture(answers: list[Answer]) -> str:
    """A tree from left to right: what is needed and the call, when, which recipe it chooses."""
    parts, stacked, y = [], [], TOP
    for (need, call), group in itertools.groupby(answers, key=lambda answer: (answer.need, answer.call)):
        leaves = list(group)
        middle = y + ROW * (len(leaves) - 1) / 2
        choices = "".join(f"<span>{escape(answer.when)}: {_chosen(answer)}</span>" for answer in leaves)
        stacked.append(f"<li><strong>{need}</strong><code>{escape(call)}</code>{choices}</li>")
        parts.append(_box(NEED, middle, "need", need, call))
        for answer in leaves:
            parts += [
                _line(NEED, middle, WHEN, y),
                _line(WHEN, y, RECIPE, y),
                _box(WHEN, y, "when", answer.when),
                _box(RECIPE, y, "method" if answer.method else "recipe", answer.method or answer.recipe),
            ]
            y += ROW
        y += ROW // 2 if len(leaves) > 1 else ROW * 3 // 4
    told = "; ".join(
        f"{answer.need}, {answer.when}: {answer.call} uses {answer.method or answer.recipe}" for answer in answers
    )
    return (
        '<div class="which-recipe table-wrapper" tabindex="0" role="region" aria-label="which recipe, as a picture">'
        f'<svg viewBox="0 0 {sum(RECIPE)} {y}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg>'
        f"<ul>{''.join(stacked)}</ul></div>"
    )


def _chosen(answer: Answer) -> str:
    return answer.method or f"<code>{answer.recipe}</code>"


def _box(column: tuple[int, int], y: float, kind: str, *lines: str) -> str:
    left, width = column
    height = BOX + 20 * (len(lines) - 1)
    texts = "".join(
        f'<text class="{kind if i == 0 else "call"}" x="{left + 12}" y="{y + 5 + 20 * (i - (len(lines) - 1) / 2)}">'
        f"{escape(line)}</text>"
        for i, line in enumerate(lines)
    )
    place = f'x="{left + 1}" y="{y - height / 2}" width="{width - 2}" height="{height}"'
    return f'<rect class="{kind}" {place} rx="4"/>{texts}'


def _line(start: tuple[int, int], y: float, end: tuple[int, int], to: float) -> str:
    left, right = sum(start), end[0]
    bend = (left + right) / 2
    return f'<path d="M{left} {y} C{bend} {y} {bend} {to} {right} {to}"/>'


def listing(answers: list[Answer]) -> str:
    """The same as a reST table, with costs; each need leads to the tutorial that measures it."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 18 20 24 24 14", ""]
    header = "You need", "Call", "When", "It uses", "Cost"
    for first, *rest in [header, *map(_cells, answers)]:
        lines += [f"   * - {first}", *(f"     - {cell}" for cell in rest)]
    return "\n".join(lines)


def _cells(answer: Answer) -> tuple[str, ...]:
    name = answer.call.partition("(")[0]
    return (
        f":doc:`{answer.need} </tutorials/{answer.tutorial}>`",
        _linked(name, answer.call),
        answer.when,
        answer.method or _linked(answer.recipe, answer.recipe),
        answer.cost,
    )


def _linked(name: str, text: str) -> str:
    if name.startswith("torch."):
        return f":func:`{text} <{name}>`"
    if name not in funcdiff.__all__ and name.removeprefix("distributed.") not in distributed.__all__:
        raise ValueError(f"docs/_ext/shown/recipe_answers.py names {name}, which funcdiff does not have")
    return f":func:`{text} <funcdiff.{name}>`"


class WhichRecipe(SphinxDirective):
    """The picture, then the table, which is folded."""

    def run(self) -> list[nodes.Node]:
        """Make both from the one list."""
        return [
            nodes.raw("", f'{picture(ANSWERS)}<details class="numbers"><summary>{SUMMARY}</summary>', format="html"),
            *self.parse_text_to_nodes(listing(ANSWERS)),
            nodes.raw("", "</details>", format="html"),
        ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("which-recipe", WhichRecipe)
    return {"parallel_read_safe": True}
