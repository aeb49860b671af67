"""Keep what belongs together on one line: a number and its unit, an exponent, an arrow, a formula and its comma.

Printed lines that fit the column stay as they were printed, as they may be aligned. Messages are longer, and wrap.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

_UNIT = r"(?:[kKMGT]?i?B|[kMGT]?FLOPs?|[mµn]?s)(?:/s)?"
_TOGETHER = re.compile(rf"(\d[\d.,]* {_UNIT}\b|\d[\d.]*e[-+]\d+|\bn = [\d,]+|\S+ ->|->)")
_COLUMN = 88  # letters of code in a line at 1280 pixels
_MARK = re.compile(r"[.,;:!?)]+")


class Unbroken(SphinxPostTransform):
    """Set each of them in the class `unbroken`, which a style keeps whole. A reader copies the text as it was."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        """Formulas first, as the marks after them are part of texts."""
        for formula in list(self.document.findall(nodes.math)):
            _take_mark(formula)
        for block in self.document.findall(nodes.literal_block):
            if max(map(len, block.astext().splitlines()), default=0) > _COLUMN:
                block["classes"].append("long-lines")
        for text in list(self.document.findall(nodes.Text)):
            if not isinstance(text.parent, (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.raw)):
                parts = pieces(text)
                if len(parts) > 1:
                    text.parent.replace(text, parts)


def _take_mark(formula: nodes.math) -> None:
    after = formula.next_node(descend=False, siblings=True)
    mark = _MARK.match(after) if isinstance(after, nodes.Text) else None
    if mark:
        formula.parent.replace(after, nodes.Text(after[mark.end() :]))
        whole = nodes.inline("", "", classes=["unbroken"])
        formula.replace_self(whole)
        whole += [formula, nodes.Text(mark[0])]


def pieces(text: str) -> list[nodes.Node]:
    """The text in parts, those that stay whole as nodes of their own."""
    return [
        nodes.inline("", part, classes=["unbroken"]) if i % 2 else nodes.Text(part)
        for i, part in enumerate(_TOGETHER.split(text))
        if part
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(Unbroken)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
