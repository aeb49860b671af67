"""What Sphinx-Gallery generates is changed as the site needs it; where there is nothing to change, the build fails."""

from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.utils import new_document
from PIL import Image
from sphinx import addnodes
from sphinx.cmd.build import build_main
from sphinx.errors import ExtensionError

from _ext.gallery import cards, downloads, times
from _ext.gallery.tutorials import GALLERY, sources
from _ext.pages.tables import table

PAGE = "tutorials/jacobians/six_ways"


def document(docname, *content, repository=""):
    settings = get_default_settings()
    settings.env = SimpleNamespace(docname=docname, config=SimpleNamespace(public_repository=repository))
    made = new_document(docname, settings)
    made += nodes.section("", nodes.title("", "Title"), *content)
    return made


def note():
    return addnodes.only("", nodes.note("", classes=["sphx-glr-download-link-note"]), expr="html")


@pytest.mark.parametrize("repository", ["", "owner/name"])
def test_downloads_take_the_place_of_the_note_and_colab_is_offered_only_where_notebooks_are_public(repository):
    page = document(PAGE, note(), nodes.paragraph("", "Text"), repository=repository)
    downloads.Buttons(page).apply()
    assert not list(page.findall(nodes.note))
    title, container, *_ = page[0]
    assert isinstance(title, nodes.title)
    files = [node["reftarget"] for node in container.findall(addnodes.download_reference)]
    assert files == ["six_ways.py", "six_ways.ipynb"]
    links = [node["refuri"] for node in container.findall(nodes.reference) if "refuri" in node]
    address = "https://colab.research.google.com/github/owner/name/blob/notebooks/jacobians/six_ways.ipynb"
    assert links == ([address] if repository else [])


def test_a_tutorial_without_the_note_fails_the_build_and_other_pages_are_left_alone():
    with pytest.raises(ExtensionError, match=f"{PAGE}: expected one note to the downloads, found 0"):
        downloads.Buttons(document(PAGE)).apply()
    other = document("tutorials/jacobians/index", note())
    downloads.Buttons(other).apply()
    assert list(other.findall(nodes.note))


def test_run_times_load_nothing_from_elsewhere_and_a_page_that_would_not_fails_the_build():
    script = nodes.raw("", '<script src="https://elsewhere.example/tables.js"></script>', format="html")
    timed = table(("Example", "Time", "Mem (MB)"), [(nodes.literal("", "../gallery/jobs/a.py"), "00:01", "0.0")])
    page = document("tutorials/sg_execution_times", nodes.container("", script, timed))
    times.WithinTheSite(page).apply()
    assert not list(page.findall(nodes.raw))
    assert [entry.astext() for entry in page.findall(nodes.entry)] == ["Example", "Time", "gallery/jobs/a.py", "00:01"]
    with pytest.raises(ExtensionError, match="expected scripts of Sphinx-Gallery's to leave out, found none"):
        times.WithinTheSite(page).apply()


CARD = """
.. raw:: html

    <div class="sphx-glr-thumbcontainer" tooltip="An intro.">

.. only:: html

  :doc:`/tutorials/{page}`

.. raw:: html

      <div class="sphx-glr-thumbnail-title">A title</div>
    </div>
"""


def test_every_card_holds_its_answer_and_a_card_that_is_missing_fails_the_build():
    pages = [source.relative_to(GALLERY).with_suffix("").as_posix() for source in sources()]
    index = "".join(CARD.format(page=page) for page in pages)
    content = [index]
    cards.add_answers(None, "tutorials/index", content)
    assert "tooltip" not in content[0]
    assert all(cards.answer(source) in content[0] for source in sources())
    for text in (index.removeprefix(CARD.format(page=pages[0])), index.replace("thumbcontainer", "card")):
        with pytest.raises(ExtensionError, match=f"a card for each of {len(pages)} tutorials, found"):
            cards.add_answers(None, "tutorials/index", [text])


def test_every_picture_says_its_size_and_loads_late(tmp_path):
    Image.new("P", (640, 400)).save(tmp_path / "picture.png")
    (tmp_path / "conf.py").write_text("extensions = ['_ext.pages.images']\n")
    (tmp_path / "index.rst").write_text("Home\n====\n\n.. image:: picture.png\n   :alt: A picture.\n   :width: 900px\n")
    assert build_main(["-q", "-W", str(tmp_path), str(tmp_path / "site")]) == 0
    html = (tmp_path / "site" / "index.html").read_text()
    (tag,) = [part.partition(">")[0] for part in html.split("<img")[1:]]
    for attribute in ('width="320"', 'height="200"', 'loading="lazy"', 'decoding="async"', 'alt="A picture."'):
        assert attribute in tag
    assert "style" not in tag


def test_a_column_of_numbers_is_known_and_a_row_of_one_cell_is_a_heading():
    made = table(["method", "time", "ratio"], [["small"], ["a", "3.1 ms", "1.2 (1 to 1.4)"], ["b", "", "18"]])
    rows = [list(row.findall(nodes.entry)) for row in made.findall(nodes.row)]
    assert [[("number" in entry["classes"]) for entry in row] for row in rows] == [
        [False, True, True],
        [False],
        [False, True, True],
        [False, True, True],
    ]
    assert rows[1][0]["morecols"] == 2
