"""The default role: single backquotes are code, and a link where they name something documented."""

from docutils import nodes
from sphinx.ext.autosummary import AutoLink


class Code(AutoLink):
    """autosummary's role, but what it cannot import it leaves as code rather than emphasised."""

    def run(self):
        made, messages = super().run()
        if isinstance(made[0], nodes.emphasis):
            made[0] = nodes.literal(self.rawtext, made[0].astext())
        return made, messages


def setup(app):
    """Register the role."""
    app.add_role("code-link", Code())
    return {"parallel_read_safe": True}
