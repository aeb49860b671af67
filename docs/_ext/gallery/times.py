"""Keep the pages of run times within the site: Sphinx-Gallery has them load scripts and styles from elsewhere."""

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform


class WithinTheSite(SphinxTransform):
    """Take what would be fetched away; the tables are sorted as they are."""

    default_priority = 400

    def apply(self, **kwargs):
        """Fail where nothing would be fetched: then this extension is no longer needed."""
        if not self.env.docname.endswith("sg_execution_times"):
            return
        fetched = [raw for raw in self.document.findall(nodes.raw) if "<script" in raw.astext()]
        if not fetched:
            raise ExtensionError(f"{self.env.docname}: expected scripts of Sphinx-Gallery's to leave out, found none")
        for raw in fetched:
            raw.parent.remove(raw)


def setup(app):
    """Change these pages once they are read."""
    app.add_transform(WithinTheSite)
    return {"parallel_read_safe": True}
