"""What the package needs, as `pyproject.toml` says: `.. requirements::` becomes the table."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterator
from importlib.metadata import version

from docutils import nodes
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from _ext.gallery.tutorials import ROOT
from _ext.pages.tables import table
from funcdiff._torch.versions import NEWEST

PROJECT = ROOT / "pyproject.toml"
_PYTHON = "Programming Language :: Python :: 3."
_WORDS = {">=": "{} or newer", "<": "older than {}", "==": "{}", "!=": "not {}", "<=": "{} or older", ">": "after {}"}


def in_words(specifier: SpecifierSet) -> str:
    """A range of versions, as one says it."""
    bounds = sorted(specifier, key=lambda bound: bound.operator, reverse=True)
    return ", ".join(_WORDS[bound.operator].format(bound.version) for bound in bounds) or "any"


def rows() -> Iterator[list[str]]:
    """Python and each package that is always needed: what is supported, and what this site was built with."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    pythons = [name.rpartition(" ")[2] for name in project["classifiers"] if name.startswith(_PYTHON)]
    yield ["Python", f"{pythons[0]} to {pythons[-1]}", platform.python_version()]
    for requirement in map(Requirement, project["dependencies"]):
        tested = f", tested up to {NEWEST}" if requirement.name == "torch" else ""
        yield [requirement.name, in_words(requirement.specifier) + tested, version(requirement.name)]


class Requirements(SphinxDirective):
    """`.. requirements::`."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        self.env.note_dependency(str(PROJECT))
        return [table(["", "supported", "this site was built with"], list(rows()))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("requirements", Requirements)
    return {"parallel_read_safe": True}
