"""Offer each tutorial as script and notebook at the head of its page, where Sphinx-Gallery has a note to the foot."""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

from _ext.gallery.notebooks import colab_address
from _ext.gallery.tutorials import GALLERY

_NOTE = "sphx-glr-download-link-note"


def buttons(docname, repository):
    """The buttons, with "Open in Colab" where the notebooks are public."""
    page = docname.removeprefix("tutorials/")
    line = nodes.paragraph()
    for text, suffix in (("Python script", ".py"), ("Notebook", ".ipynb")):
        label = nodes.literal("", text, classes=["xref", "download"])
        target = Path(page).with_suffix(suffix).name
        line += [addnodes.download_reference("", "", label, reftarget=target, refdoc=docname), nodes.Text(" ")]
    if repository:
        line += nodes.reference("", "Open in Colab", refuri=colab_address(repository, page))
    return nodes.container("", line, classes=["downloads"])


class Buttons(SphinxTransform):
    """Put the buttons below a tutorial's title, and take the note away."""

    default_priority = 400

    def apply(self, **kwargs):
        """Fail where there is no note: then Sphinx-Gallery offers downloads in another way."""
        docname = self.env.docname
        if not docname.startswith("tutorials/") or not (GALLERY / f"{docname.removeprefix('tutorials/')}.py").exists():
            return
        notes = [note for note in self.document.findall(nodes.note) if _NOTE in note["classes"]]
        if len(notes) != 1:
            raise ExtensionError(f"{docname}: expected one note to the downloads, found {len(notes)}")
        notes[0].parent.remove(notes[0])
        section = next(self.document.findall(nodes.section))
        section.insert(1, buttons(docname, self.config.public_repository))


def setup(app):
    """Change the head of each tutorial once it is read."""
    app.add_transform(Buttons)
    return {"parallel_read_safe": True}
