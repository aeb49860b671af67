"""Directives that run torch to make what they show; with `-D computed=0` neither they nor tutorials are run."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective


class Computed(SphinxDirective):
    """A directive whose nodes `compute` makes."""

    def run(self) -> list[nodes.Node]:
        """The nodes, or none where nothing is run."""
        return self.compute() if self.config.computed else []

    def compute(self) -> list[nodes.Node]:
        """Run torch and show what it did."""
        raise NotImplementedError


def _leave_tutorials(app: Sphinx, config: Config) -> None:
    if not config.computed:
        config.plot_gallery = "False"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the switch as part of the environment, so that a page read without it is read again."""
    app.add_config_value("computed", True, "env")
    app.connect("config-inited", _leave_tutorials)
    return {"parallel_read_safe": True}
