"""Let each entry of the index lead to its section, of which the search can show the title and the first words.

Sphinx lets it lead to an empty element beside the section, where its search script finds no words and stops.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform


def _section(index):
    """The section that an entry is for: the one it stands in, or the next one, if nothing else stands between."""
    inside = index.parent
    after = inside[inside.index(index) + 1 :]
    if not isinstance(inside, nodes.section) or not all(
        isinstance(node, (nodes.target, nodes.section)) for node in after
    ):
        return inside
    nested = next((node for node in after if isinstance(node, nodes.section)), None)
    if nested is not None:
        return nested
    siblings = inside.parent[inside.parent.index(inside) + 1 :]
    return siblings[0] if siblings else inside


class LeadToSections(SphinxTransform):
    """Move the entries that `index` directives make."""

    default_priority = 840  # Sphinx collects the entries at 850

    def apply(self, **kwargs):
        """Name the section's identifier in each entry, or none at all where the section is the whole page."""
        del kwargs
        for index in self.document.findall(addnodes.index):
            section = _section(index)
            while not isinstance(section, (nodes.section, nodes.document)):
                section = section.parent
            whole = isinstance(section, nodes.document) or isinstance(section.parent, nodes.document)
            place = "" if whole else section["ids"][0]
            index["entries"] = [
                (kind, words, place if target.startswith("index-") else target, main, key)
                for kind, words, target, main, key in index["entries"]
            ]


def setup(app):
    """Move them before Sphinx reads them."""
    app.add_transform(LeadToSections)
    return {"parallel_read_safe": True}
