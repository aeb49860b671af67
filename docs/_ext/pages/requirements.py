"""What the package needs, from its own metadata: `.. requirements::` becomes the table."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import metadata, requires, version

from docutils import nodes
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from _ext.pages.tables import table

_WORDS = {">=": "{} or newer", "<": "older than {}", "==": "{}", "!=": "not {}", "<=": "{} or older", ">": "after {}"}


def in_words(specifier: SpecifierSet) -> str:
    """A range of versions, as one says it."""
    bounds = sorted(specifier, key=lambda bound: bound.operator, reverse=True)
    return ", ".join(_WORDS[bound.operator].format(bound.version) for bound in bounds) or "any"


def rows() -> Iterator[list[str]]:
    """Python and each package that is always needed: what is supported, and what this site was built with."""
    python = metadata("funcdiff")["Requires-Python"]
    yield ["Python", in_words(SpecifierSet(python)), platform.python_version()]
    needed = map(Requirement, requires("funcdiff") or [])
    for requirement in sorted(needed, key=lambda needed: needed.name != "torch"):
        if requirement.marker is None:
            yield [requirement.name, in_words(requirement.specifier), version(requirement.name)]


class Requirements(SphinxDirective):
    """`.. requirements::`."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        return [table(["", "supported", "this site was built with"], list(rows()))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("requirements", Requirements)
    return {"parallel_read_safe": True}
