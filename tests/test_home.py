"""The home page, the README and what is said around every page: versions, addresses, Markdown."""

import re
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from sphinx.errors import ExtensionError

from _ext.gallery import sidebar
from _ext.gallery.order import ORDER
from _ext.gallery.tutorials import GALLERY, sources
from _ext.pages import edit, executed, markdown, requirements, styles
from _ext.shown import headline
from funcdiff.measure.ratios import Ratio

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Ratio(14.2, 11.4, 25.5, 9), "14.2× faster"),
        (Ratio(1.1, 0.9, 1.3, 9), "no faster in this run"),
        (Ratio(0.5, 0.4, 0.6, 9), "2× slower in this run"),
    ],
)
def test_the_title_of_the_figure_follows_the_finding(ratio, said):
    assert headline.title(ratio, 8.5, 0.5) == f"The same Hessian: {said}, 8.5× fewer FLOPs, 2× more memory"


@pytest.fixture(scope="module")
def found():
    return headline.measured()


@pytest.mark.slow
def test_the_figure_shows_what_was_measured(found):
    drawn = headline.figure(found)
    assert headline.title(found.ratio, found.fewer("flops"), found.fewer("peak_bytes")) in drawn
    for name, cost in found.costs.items():
        flops, _, _, peak = cost.cells
        assert flops in drawn
        assert peak in drawn
        assert found.times[name].n == headline.ROUNDS
    widths = [float(width) for width in re.findall(r"width: ([\d.]+)%", drawn)]
    assert len(widths) == 6
    assert max(widths) == 100


@pytest.mark.slow
def test_the_figure_names_the_recipe_that_was_chosen(found):
    assert found.recipe == "hessian_taylor"
    assert headline.chosen(lambda x: x.sin(), headline.torch.ones(2, 3), ("0 FLOP", "0", "0 B", "0 B")) is None


def test_the_ten_lines_of_the_readme_print_what_they_say():
    (snippet,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    done = executed.run(snippet)
    assert done.error is None
    said = re.findall(r"# (\([\d, ]+\))", snippet)
    printed = [line.removeprefix("torch.Size").replace("[", "").replace("]", "") for line in done.printed.split("\n")]
    assert printed[:-1] == [shape.replace(",)", ")") for shape in said]
    assert len(said) == 5


def test_every_tutorial_has_a_short_title():
    placed = {f"{folder}/{name}": short for folder, names in ORDER.items() for name, short in names.items()}
    assert set(placed) == {source.relative_to(GALLERY).with_suffix("").as_posix() for source in sources()}
    assert len(set(placed.values())) == len(placed)
    assert all(len(short) <= 30 for short in placed.values())


def test_the_sidebar_says_short_titles_and_a_folder_without_tutorials_fails_the_build():
    content = [".. toctree::\n   :hidden:\n\n   /tutorials/hessians/taylor_mode\n"]
    sidebar.shorten(None, "tutorials/hessians/index", content)
    assert "   Taylor mode </tutorials/hessians/taylor_mode>\n" in content[0]
    untouched = ["   /tutorials/hessians/index.rst\n"]
    sidebar.shorten(None, "tutorials/index", untouched)
    assert untouched == ["   /tutorials/hessians/index.rst\n"]
    with pytest.raises(ExtensionError, match="expected a table of contents of tutorials, found none"):
        sidebar.shorten(None, "tutorials/hessians/index", [""])


@pytest.mark.parametrize(
    ("page", "source"),
    [
        ("guides/needs", "docs/guides/needs.rst"),
        ("tutorials/hessians/taylor_mode", "gallery/hessians/taylor_mode.py"),
        ("tutorials/hessians/index", None),
        ("reference/generated/funcdiff.hvp", None),
    ],
)
def test_a_page_can_be_edited_where_its_source_is_public(page, source):
    assert edit.address("", page) is None
    assert edit.address("owner/name", page) == (source and f"https://github.com/owner/name/edit/main/{source}")
    assert source is None or (ROOT / source).exists()


def test_versions_are_those_of_the_package():
    assert requirements.in_words(SpecifierSet(">=3.11")) == "3.11 or newer"
    assert requirements.in_words(SpecifierSet("<2.16,>=2.11")) == "2.11 or newer, older than 2.16"
    assert requirements.in_words(SpecifierSet("")) == "any"
    (python, supported, _), *packages = requirements.rows()
    assert (python, supported) == ("Python", "3.11 to 3.13")
    assert [name for name, *_ in packages] == ["torch", "numpy", "tqdm"]


def test_a_page_becomes_markdown():
    html = """<nav>Menu</nav><article><h1>Title<a class="headerlink" href="#t">¶</a></h1>
      <p>Of <math alttext="x_0^2"><mi>x</mi></math> by
      <a href="a.html" title="(in torch)"><code>hessian_taylor</code></a></p>
      <div class="highlight-python notranslate"><div class="highlight"><pre>x = 1\n</pre></div></div>
      <div class="printed highlight-none"><pre>1\n</pre></div>
      <img class="only-light" src="a.png" alt="A figure."/><img class="only-dark" src="b.png" alt="A figure."/>
      <table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>x_y</td></tr></tbody></table>
      <form><button>Go</button></form></article>"""
    text = markdown.page_as_markdown(html)
    assert text.startswith("# Title\n\nOf $x_0^2$ by\n[`hessian_taylor`](a.html)\n")
    assert "```python\nx = 1\n```" in text
    assert "```\n1\n```" in text
    assert text.count("A figure.") == 1
    assert "| 1 | x_y |" in text
    assert not {"Menu", "Go", "¶"} & set(re.findall(r"\w+|¶", text))


@pytest.mark.parametrize(("body", "loaded"), [('<div class="sd-card">', {"sphinx-design.min.css"}), ("<p>", set())])
def test_a_page_loads_only_the_styles_that_it_uses(body, loaded):
    class File:
        def __init__(self, filename):
            self.filename = filename

    files = [File(f"_static/{name}") for name in ("furo.css", "home.css", "sphinx-design.min.css")]
    context = {"body": body, "css_files": files, "script_files": [File("_static/design-tabs.js")]}
    styles._leave_out(None, "page", "page.html", context, None)
    assert {file.filename.rpartition("/")[2] for file in context["css_files"]} == {"furo.css", *loaded}
    assert context["script_files"] == []
