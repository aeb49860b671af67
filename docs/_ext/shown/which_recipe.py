"""Which recipe? The answers as data: `.. which-recipe::` makes a picture and a table of them.

The picture is drawn into the page, in the page's own colours, so that it follows light and dark.
"""

from __future__ import annotations

import itertools
from html import escape
from typing import NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import funcdiff


class Answer(NamedTuple):
    """What to take when `need` is needed and `when` holds; `cost` in reST, `tutorial` where it is told."""

    need: str
    when: str
    recipe: str
    cost: str
    tutorial: str


ANSWERS = [
    Answer("a Jacobian", "more outputs than inputs", "jacobian_forward", ":math:`(2 + n) F`", "jacobians/winner_map"),
    Answer("a Jacobian", "more inputs than outputs", "jacobian_reverse", ":math:`(1 + m) F`", "jacobians/winner_map"),
    Answer(
        "a Jacobian",
        "a small function, called often",
        "jacobian_batched_grad",
        ":math:`(1 + m) F`, the fewest calls",
        "jacobians/loop_against_vmap",
    ),
    Answer(
        "a Jacobian",
        "what vmap refuses is inside",
        "jacobian_loop",
        ":math:`(1 + m) F`, :math:`m` calls",
        "jacobians/loop_against_vmap",
    ),
    Answer(
        "a Hessian",
        "outputs more than half the inputs",
        "hessian_taylor",
        ":math:`(1 + n + q) F`",
        "hessians/four_hessians",
    ),
    Answer(
        "a Hessian",
        "fewer outputs, or one",
        "hessian_forward_over_reverse",
        ":math:`(1 + n)(1 + m) F`",
        "hessians/four_hessians",
    ),
    Answer(
        "a Hessian",
        "a norm or a determinant is inside",
        "hessian_taylor",
        ":math:`(1 + n + q) F`",
        "hessians/when_they_disagree",
    ),
    Answer(
        "a Hessian",
        "no forward formula inside",
        "hessian_reverse_over_reverse",
        ":math:`n m` passes through :math:`m`",
        "hessians/four_hessians",
    ),
    Answer("a Hessian times v", "once", "hvp_double_backward", ":math:`4 F`", "products/hvp_four_ways"),
    Answer(
        "a Hessian times v",
        "many v at one point",
        "hvp_operator",
        ":math:`2 F`, and :math:`2 F` each",
        "products/many_vectors",
    ),
    Answer("a Laplacian", "any", "laplacian", ":math:`(2 + n) F`", "uses/physics_informed"),
    Answer("each row of a batch", "func of one row", "batch_jacobian", "the row's, batched", "batches/per_row"),
    Answer(
        "each row of a batch",
        "func of the whole batch",
        "batch_jacobian_summed",
        "the row's, batched",
        "batches/sum_trick",
    ),
    Answer(
        "by parameters",
        "of a module",
        "module_function",
        "none: it makes the function",
        "jacobians/weights_and_biases",
    ),
]

ROW, BOX, TOP = 34, 26, 14
NEED, WHEN, RECIPE = (0, 170), (220, 270), (540, 290)  # left edge and width of the columns


def picture(answers: list[Answer]) -> str:
    """A tree from left to right: what is needed, when, which recipe."""
    parts, y = [], TOP
    for need, group in itertools.groupby(answers, key=lambda answer: answer.need):
        leaves = list(group)
        middle = y + ROW * (len(leaves) - 1) / 2
        parts.append(_box(NEED, middle, need, "need"))
        for answer in leaves:
            parts += [
                _line(NEED, middle, WHEN, y),
                _line(WHEN, y, RECIPE, y),
                _box(WHEN, y, answer.when, "when"),
                _box(RECIPE, y, answer.recipe, "recipe"),
            ]
            y += ROW
        y += ROW // 3
    told = "; ".join(f"{answer.need}, {answer.when}: {answer.recipe}" for answer in answers)
    return (
        '<div class="which-recipe table-wrapper" role="region" aria-label="which recipe, as a picture">'
        f'<svg viewBox="0 0 {sum(RECIPE)} {y}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg></div>'
    )


def _box(column: tuple[int, int], y: float, text: str, kind: str) -> str:
    left, width = column
    return (
        f'<rect class="{kind}" x="{left + 1}" y="{y - BOX / 2}" width="{width - 2}" height="{BOX}" rx="4"/>'
        f'<text class="{kind}" x="{left + 12}" y="{y + 5}">{escape(text)}</text>'
    )


def _line(start: tuple[int, int], y: float, end: tuple[int, int], to: float) -> str:
    left, right = sum(start), end[0]
    bend = (left + right) / 2
    return f'<path d="M{left} {y} C{bend} {y} {bend} {to} {right} {to}"/>'


def listing(answers: list[Answer]) -> str:
    """The same as a reST table, with costs and tutorials."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 15 22 25 18 20", ""]
    for first, *rest in [("You need", "When", "Take", "Cost", "Told in"), *map(_cells, answers)]:
        lines += [f"   * - {first}", *(f"     - {cell}" for cell in rest)]
    return "\n".join(lines)


def _cells(answer: Answer) -> tuple[str, ...]:
    if answer.recipe not in funcdiff.__all__:
        raise ValueError(f"docs/_ext/shown/which_recipe.py names {answer.recipe}, which funcdiff does not have")
    recipe, tutorial = f":func:`~funcdiff.{answer.recipe}`", f":doc:`/tutorials/{answer.tutorial}`"
    return answer.need, answer.when, recipe, answer.cost, tutorial


class WhichRecipe(SphinxDirective):
    """The picture, then the table."""

    def run(self) -> list[nodes.Node]:
        """Make both from the one list."""
        return [nodes.raw("", picture(ANSWERS), format="html"), *self.parse_text_to_nodes(listing(ANSWERS))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("which-recipe", WhichRecipe)
    return {"parallel_read_safe": True}
