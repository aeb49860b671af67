"""Which recipe? The answers as data: `.. which-recipe::` makes a picture and a table of them.

The picture is drawn into the page, in the page's own colours, so that it follows light and dark. A test compares each
answer with the recipe finder and with the package, on every question that the answer is about.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from html import escape
from typing import NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import funcdiff
from _tools.finder.answers import PREPARED, SPARSE
from _tools.finder.model import Question
from funcdiff import distributed


class Answer(NamedTuple):
    """What to call for a need, and the recipe that it chooses; `asks` says for which of the finder's questions."""

    need: str
    call: str
    when: str
    recipe: str
    cost: str  # in reST
    tutorial: str
    asks: Callable[[Question], bool]

    @property
    def method(self) -> str:
        """What the function does, if it is a recipe itself and chooses none."""
        return METHODS.get(self.call.partition("(")[0], "")


def _asks(need: str, shape: Callable[[int, int], bool], *, rows: bool = False) -> Callable[[Question], bool]:
    """Questions about networks without a norm, by their inputs and outputs."""

    def asked(q: Question) -> bool:
        return q.need == need and (q.rows > 0) == rows and q.norm == "none" and shape(q.inputs, q.outputs)

    return asked


def _tiny(q: Question) -> bool:
    """Where a Hessian takes few operations by any recipe, so that the size of the layers decides."""
    return _asks("Hessian", lambda n, m: n <= 3 and m <= 3)(q)


def _large(q: Question) -> bool:
    """Where matrix products take the time."""
    return q.layers > 1 and q.width >= 1000


def _any(need: str) -> Callable[[Question], bool]:
    return lambda q: q.need == need


def _none(q: Question) -> bool:
    """The rows that the finder does not ask about."""
    return False


ANSWERS = [
    Answer(
        "a gradient",
        "torch.func.grad(f)(x)",
        "one output",
        "torch.func.grad",
        ":math:`2 F`",
        "jacobians/jacrev_against_jacfwd",
        lambda q: q.need == "Jacobian" and q.outputs == 1,
    ),
    Answer(
        "a Jacobian",
        "jacobian(f)(x)",
        "several outputs, m ≤ n",
        "jacobian_batched_grad",
        ":math:`(1 + m) F`",
        "jacobians/jacrev_against_jacfwd",
        _asks("Jacobian", lambda n, m: 1 < m <= n),
    ),
    Answer(
        "a Jacobian",
        "jacobian(f)(x)",
        "n < m ≤ 300, up to 64 units",
        "jacobian_batched_grad",
        ":math:`(1 + m) F`",
        "jacobians/jacrev_against_jacfwd",
        lambda q: _asks("Jacobian", lambda n, m: n < m <= 300)(q) and q.width <= 64,
    ),
    Answer(
        "a Jacobian",
        "jacobian(f)(x)",
        "m ≥ 50 and m ≥ 5 n, large layers",
        "jacobian_taylor",
        ":math:`(1 + n) F`",
        "jacobians/jacrev_against_jacfwd",
        lambda q: _asks("Jacobian", lambda n, m: m >= 50 and m >= 5 * n)(q) and _large(q),
    ),
    Answer(
        "a Jacobian",
        "jacobian(f)(x)",
        "m ≥ 1000 and m ≥ 3 n",
        "jacobian_taylor",
        ":math:`(1 + n) F`",
        "jacobians/jacrev_against_jacfwd",
        _asks("Jacobian", lambda n, m: m >= 1000 and m >= 3 * n),
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "n ≥ 5 and m ≥ 5 n",
        "hessian_taylor",
        "at most :math:`(1 + n + q) F`",
        "hessians/taylor_mode",
        _asks("Hessian", lambda n, m: n >= 5 and m >= 5 * n),
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "n ≤ 3 and m ≤ 3, large layers",
        "hessian_taylor",
        "at most :math:`(1 + n + q) F`",
        "hessians/taylor_mode",
        lambda q: _tiny(q) and _large(q),
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "n ≤ 3 and m ≤ 3, small layers",
        "hessian_double_backward",
        "at most :math:`(1 + m)(1 + m n) F`",
        "hessians/four_hessians",
        lambda q: _tiny(q) and q.width <= 128,
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "one output, 8 ≤ n ≤ 800",
        "hessian_double_backward",
        ":math:`2 (1 + n) F`",
        "hessians/four_hessians",
        _asks("Hessian", lambda n, m: m == 1 and 8 <= n <= 800),
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "several outputs, n ≥ 500 m",
        "hessian_forward_over_reverse",
        "at most :math:`(2 + n)(1 + m) F`",
        "hessians/four_hessians",
        _asks("Hessian", lambda n, m: m > 1 and n >= 500 * m),
    ),
    Answer(
        "a Hessian times v",
        "hvp(f, (x,), (v,))",
        "one vector",
        "hvp_double_backward",
        ":math:`4 F`",
        "products/hvp_four_ways",
        _any("Hessian-vector product"),
    ),
    Answer(
        "a Hessian times v",
        "hvp_operator(f, x)(v)",
        "many vectors at one point",
        "hvp_operator",
        ":math:`2 F`, and :math:`2 F` each",
        "products/many_vectors",
        _none,
    ),
    Answer(
        "a Hessian times v",
        "distributed.hvp_operator",
        "data on several machines",
        "hvp_operator",
        ":math:`2 F` each, and one sum",
        "distributed/right_product",
        _none,
    ),
    Answer(
        "a Hessian's diagonal",
        "hessian_diagonal(f)(x)",
        "any shape",
        "hessian_diagonal",
        "at most :math:`(1 + 2 n) F`",
        "uses/physics_informed",
        _any("Hessian diagonal"),
    ),
    Answer(
        "a Laplacian",
        "laplacian(f)(x)",
        "any shape",
        "laplacian",
        "at most :math:`(2 + n) F`",
        "uses/physics_informed",
        _any("Laplacian"),
    ),
    Answer(
        "a Jacobian for each row",
        "batch_jacobian(f)(X)",
        "several outputs, n ≥ 2 m, 128 or more units",
        "jacobian_reverse",
        ":math:`(1 + m) F` a row",
        "batches/per_row",
        lambda q: _asks("Jacobian", lambda n, m: n >= 2 * m > 2, rows=True)(q) and q.width >= 128,
    ),
    Answer(
        "a Jacobian for each row",
        "batch_jacobian(f)(X)",
        "m ≥ 3 n, 64 or more units",
        "jacobian_taylor",
        ":math:`(1 + n) F` a row",
        "batches/per_row",
        lambda q: _asks("Jacobian", lambda n, m: m >= 3 * n, rows=True)(q) and q.width >= 64,
    ),
    Answer(
        "a Hessian for each row",
        "batch_hessian(f)(X)",
        "m ≥ n",
        "hessian_taylor",
        "at most :math:`(1 + n + q) F` a row",
        "batches/per_row",
        _asks("Hessian", lambda n, m: m >= n, rows=True),
    ),
    Answer(
        "a Hessian for each row",
        "batch_hessian(f)(X)",
        "one output, n ≤ 2",
        "hessian_taylor",
        "at most :math:`(1 + n + q) F` a row",
        "batches/per_row",
        _asks("Hessian", lambda n, m: m == 1 and n <= 2, rows=True),
    ),
    Answer(
        "a Hessian for each row",
        "batch_hessian(f)(X)",
        "one output, 8 ≤ n < 20, 128 or more units",
        "hessian_reverse_over_reverse",
        ":math:`2 (1 + n) F` a row",
        "batches/per_row",
        lambda q: _asks("Hessian", lambda n, m: m == 1 and n >= 8, rows=True)(q) and q.width >= 128,
    ),
    Answer(
        "a Hessian for each row",
        "batch_hessian(f)(X)",
        "one output, n ≥ 20",
        "hessian_reverse_over_reverse",
        ":math:`2 (1 + n) F` a row",
        "batches/per_row",
        _asks("Hessian", lambda n, m: m == 1 and n >= 20, rows=True),
    ),
    *(
        Answer(
            f"a sparse {need}",
            f"{call}(f)(x)",
            when,
            call,
            cost,
            "sparse/passes",
            _none,
        )
        for (need, call), when, cost in zip(
            SPARSE.items(),
            ("few inputs in each output", "few inputs in each term of a sum"),
            (r":math:`(1 + \text{passes}) F`", r":math:`(2 + 2\,\text{passes}) F`"),
            strict=True,
        )
    ),
    Answer(
        "any of these, many times",
        f"{PREPARED}(jacobian(f), x)",
        "a small function",
        PREPARED,
        "its operations alone",
        "measuring/prepared",
        _none,
    ),
]

# What the functions do that are the only recipe for their answer, by the call's name.
METHODS = {
    "torch.func.grad": "reverse mode",
    "hvp_operator": "keeps the gradient's graph",
    "distributed.hvp_operator": "adds up over the machines",
    "hessian_diagonal": "Taylor mode",
    "laplacian": "Taylor mode",
    "jacobian_sparse": "several columns or rows in each pass",
    "hessian_sparse": "several columns in each pass",
    "prepare": "records the operations once",
}

SUMMARY = "The same as a table, with costs and links"
ROW, BOX, TOP = 34, 26, 24
NEED, WHEN, RECIPE = (0, 228), (254, 312), (592, 264)  # left edge and width of the columns


def picture(answers: list[Answer]) -> str:
    """A tree from left to right: what is needed and the call, when, which recipe it chooses."""
    parts, y = [], TOP
    for (need, call), group in itertools.groupby(answers, key=lambda answer: (answer.need, answer.call)):
        leaves = list(group)
        middle = y + ROW * (len(leaves) - 1) / 2
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
        f'<svg viewBox="0 0 {sum(RECIPE)} {y}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg></div>'
    )


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
        raise ValueError(f"docs/_ext/shown/which_recipe.py names {name}, which funcdiff does not have")
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
