"""The `bad-input` directive: a table of the inputs that the recipes refuse, with the messages of this build."""

from __future__ import annotations

from docutils import nodes
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


class BadInputTable(Computed):
    """`.. bad-input::`."""

    def compute(self) -> list[nodes.Node]:
        """The cases in the order of `CASES`."""
        # A message is code: typographic quotes would keep a reader who searches for it from finding it.
        rows = [(name, error, nodes.literal("", message)) for name, error, message in messages()]
        return [table(("input", "error", "message"), rows, (24, 16, 60), "bad-input")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("bad-input", BadInputTable)
    return {"parallel_read_safe": True}
