"""Offer each tutorial as script and notebook at the head of its page, where Sphinx-Gallery has a note to the foot."""

import re
from pathlib import Path

_NOTE = re.compile(r"\.\. only:: html\n\n +\.\. note::\n +:class: sphx-glr-download-link-note\n\n(?: +.*\n)+")
_TITLE = re.compile(r"^(.+\n=+\n)", re.MULTILINE)
_BUTTONS = r"""\1
.. container:: downloads

   :download:`Python script <{stem}.py>`
   :download:`Notebook <{stem}.ipynb>`

"""


def _add_buttons(app, docname, content):
    del app
    text, notes = _NOTE.subn("", content[0])
    if docname.startswith("tutorials/") and notes:
        content[0] = _TITLE.sub(_BUTTONS.format(stem=Path(docname).name), text, count=1)


def setup(app):
    """Rewrite the head of each tutorial as it is read."""
    app.connect("source-read", _add_buttons)
    return {"parallel_read_safe": True}
