"""Offer each tutorial as script and notebook at the head of its page, where Sphinx-Gallery has a note to the foot."""

import re
from pathlib import Path

from _ext.gallery.notebooks import colab_address

_NOTE = re.compile(r"\.\. only:: html\n\n +\.\. note::\n +:class: sphx-glr-download-link-note\n\n(?: +.*\n)+")
_TITLE = re.compile(r"^(.+\n=+\n)", re.MULTILINE)
_BUTTONS = r"""\1
.. container:: downloads

   :download:`Python script <{stem}.py>`
   :download:`Notebook <{stem}.ipynb>`
   {colab}

"""


def buttons(docname, repository):
    """The reST of the buttons, with "Open in Colab" where the notebooks are public."""
    page = docname.removeprefix("tutorials/")
    colab = f"`Open in Colab <{colab_address(repository, page)}>`__" if repository else ""
    return _BUTTONS.format(stem=Path(page).name, colab=colab)


def _add_buttons(app, docname, content):
    text, notes = _NOTE.subn("", content[0])
    if docname.startswith("tutorials/") and notes:
        content[0] = _TITLE.sub(buttons(docname, app.config.public_repository), text, count=1)


def setup(app):
    """Rewrite the head of each tutorial as it is read."""
    app.connect("source-read", _add_buttons)
    return {"parallel_read_safe": True}
