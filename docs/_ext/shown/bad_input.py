"""The `bad-input` directive: a table of the inputs that the recipes refuse, with the messages of this build."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from _ext.pages.computed import Computed
from _ext.pages.tables import table
from _ext.shown.bad_input_cases import CASES


def messages() -> list[tuple[str, str, str]]:
    """Provoke every case: its name, the type of the error and its message."""
    rows = []
    for case in CASES:
        try:
            case.provoke()
        except case.error as error:
            rows.append((case.name, type(error).__name__, " ".join(str(error.args[0]).split())))
        else:
            raise AssertionError(f"not refused: {case.name}")
    return rows


def begun(*rows: tuple[str, str, str]) -> Iterator[str]:
    """The first words of each message, fewer and more: a search finds an entry by at least half of its letters."""
    for _, _, message in rows:
        for width in (30, 60):
            yield textwrap.shorten(
                message.replace(";", ","), width, placeholder=""
            )  # a semicolon would divide an entry


class BadInputTable(Computed):
    """`.. bad-input::`."""

    def compute(self) -> list[nodes.Node]:
        """The cases in the order of `CASES`, and entries of the index, by which the search finds a pasted message."""
        rows = messages()
        place = f"bad-input-{self.env.new_serialno('bad-input')}"
        entries = [("single", text, place, "main", None) for text in dict.fromkeys(begun(*rows))]
        found = addnodes.index(entries=entries)
        target = nodes.target("", "", ids=[place])
        # A message is code: typographic quotes would keep a reader who searches for it from finding it.
        shown = [(name, error, nodes.literal("", message)) for name, error, message in rows]
        return [found, target, table(("input", "error", "message"), shown, (24, 16, 60), "bad-input")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("bad-input", BadInputTable)
    return {"parallel_read_safe": True}
