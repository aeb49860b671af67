"""Keep the pages of run times within the site, and to what they know: the time of each tutorial."""

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform


class WithinTheSite(SphinxTransform):
    """Take away the scripts, which Sphinx-Gallery loads from elsewhere, and the column of a memory not measured."""

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
        for group in self.document.findall(nodes.tgroup):
            _keep_two_columns(group)


def _keep_two_columns(group):
    """Of example, time and memory, keep the first two; of an example's path, the part within the gallery."""
    rows = list(group.findall(nodes.row))
    if rows[0].children[-1].astext() != "Mem (MB)":
        raise ExtensionError(f"expected a column of memory to leave out, found {rows[0].astext()!r}")
    for row in [*rows, group]:
        row.remove([each for each in row.children if isinstance(each, (nodes.entry, nodes.colspec))][-1])
    group["cols"] -= 1
    for path in list(group.findall(nodes.literal)):
        path.replace_self(nodes.literal("", path.astext().removeprefix("../")))


def setup(app):
    """Change these pages once they are read."""
    app.add_transform(WithinTheSite)
    return {"parallel_read_safe": True}
