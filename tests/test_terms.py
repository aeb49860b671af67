"""Words are linked to the glossary where a page first uses them; one that nothing explains fails the build."""

import re

import pytest
from sphinx.cmd.build import build_main
from sphinx_gallery._doctree_links import CodeLinksTransform  # private: only its place in the order is read

from _ext.pages import terms

GLOSSARY = """
Glossary
========

.. glossary::

   pytree
      A tensor or a dictionary of them. Functions take these.

   pass
      One run.

   vmap
      For rows.

   forward mode
      From the inputs.
"""


def build(folder, page):
    """The exit code of a strict build of a site with this page, and the page's HTML."""
    (folder / "conf.py").write_text("extensions = ['_ext.pages.terms']\n")
    (folder / "glossary.rst").write_text(GLOSSARY)
    (folder / "index.rst").write_text(f"Pytrees\n=======\n\n.. toctree::\n\n   glossary\n\n{page}\n")
    code = build_main(["-q", "-W", "-n", str(folder), str(folder / "site")])
    html = folder / "site" / "index.html"
    body = html.read_text().partition('<div class="body"')[2].partition("sphinxsidebar")[0] if html.exists() else ""
    return code, re.sub(r"<a class=\"headerlink.*?</a>", "", body)


def links(html):
    """The linked words with the definition that hovering shows."""
    found = re.findall(
        r'<a class="reference internal" href="glossary.html#(term-[\w-]+)" title="([^"]*)">(.*?)</a>', html
    )
    return [(anchor, hint, re.sub("<.*?>", "", text)) for anchor, hint, text in found]


def test_the_first_use_of_a_word_is_linked_and_shows_its_definition(tmp_path):
    code, html = build(tmp_path, "A ``pytree`` is code. We pass a *pytree* in one pass, forward-mode. A pytree again.")
    assert code == 0
    assert links(html) == [
        ("term-pytree", "A tensor or a dictionary of them.", "pytree"),
        ("term-pass", "One run.", "pass"),
        ("term-forward-mode", "From the inputs.", "forward-mode"),
    ]
    assert html.index("is code") < html.index("term-pytree") < html.index("again")


def test_code_that_is_a_word_is_linked_too(tmp_path):
    code, html = build(tmp_path, "Use ``vmap`` and ``vmap(func)``. A vmap again.")
    assert code == 0
    assert links(html) == [("term-vmap", "For rows.", "vmap")]
    assert "<code" in html[html.index("term-vmap") : html.index("</a>", html.index("term-vmap"))]


def test_code_is_left_alone(tmp_path):
    code, html = build(tmp_path, ".. code-block:: python\n\n   pytree = forward_mode  # forward mode")
    assert code == 0
    assert links(html) == []
    assert terms.Linked.default_priority < CodeLinksTransform.default_priority  # it makes the code of tutorials words


def test_a_word_explained_or_linked_by_hand_is_left_alone(tmp_path):
    code, html = build(tmp_path, "A :dfn:`pytree` holds tensors. Use :term:`forward mode`. A pytree in forward mode.")
    assert code == 0
    assert [anchor for anchor, *_ in links(html)] == ["term-forward-mode"]


@pytest.mark.parametrize("page", ["The pullback is linear.", "Multiply by a cotangent.", "See :term:`surrogate`."])
def test_a_word_that_nothing_explains_fails_the_build(tmp_path, page):
    code, _ = build(tmp_path, page)
    assert code == 1


def test_jargon_that_the_page_explains_passes(tmp_path):
    code, _ = build(tmp_path, "The :dfn:`pullback`, the map of reverse-time order, is linear. A pullback.")
    assert code == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("We pass the network on.", []),
        ("It takes one pass.", ["pass"]),
        ("The forward pass, then each pass back", ["pass", "pass"]),
        ("round the number; over 25 rounds of each round", ["round"]),
        ("HVPs, an IQR and 3 FLOPs", ["HVP", "IQR", "FLOP"]),
        ("the recipe's cost", ["recipe"]),
        ("reciped vmapping", []),
    ],
)
def test_words_are_found_where_they_are_meant(text, found):
    assert [terms._NAMES[match.lastgroup] for match in terms._ANY.finditer(text)] == found
