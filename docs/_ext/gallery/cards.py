"""Put each tutorial's answer on its card, on the page of the gallery and on that of its folder."""

import ast
import re

from sphinx.errors import ExtensionError

from _ext.gallery.tutorials import GALLERY, sources

_CARD = re.compile(
    r'(<div class="sphx-glr-thumbcontainer") tooltip="[^"]*"(>.*?:doc:`/tutorials/([\w/]+)`.*?</div>\n)(    </div>)',
    re.DOTALL,
)
_ANSWER = """

.. container:: answer

   {answer}

.. raw:: html

"""


def answer(source):
    """The sentences after **Answer:** in a tutorial's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    _, _, text = docstring.partition("**Answer:**")
    text = " ".join(text.split("\n\n")[0].split())
    return text[:1].upper() + text[1:]


def add_answers(app, docname, content):
    """Write the answers into an index of tutorials; fail unless each tutorial below it has its card there."""
    del app
    folder, _, page = docname.rpartition("/")
    if page != "index" or folder.partition("/")[0] != "tutorials":
        return
    below = [source for source in sources() if source.is_relative_to(GALLERY / folder.partition("/")[2])]
    content[0], cards = _CARD.subn(
        lambda m: m[1] + m[2] + _ANSWER.format(answer=answer(GALLERY / f"{m[3]}.py")) + m[4], content[0]
    )
    if cards != len(below):
        raise ExtensionError(f"{docname}: expected a card for each of {len(below)} tutorials, found {cards}")


def setup(app):
    """Rewrite the indices of the gallery as they are read."""
    app.connect("source-read", add_answers)
    return {"parallel_read_safe": True}
