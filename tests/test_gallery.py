"""The tutorials' sources keep to their skeleton."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "gallery").rglob("*.py"))
GENERATED = {"_build", "tutorials", "generated"}
PAGES = [page for folder in ("docs", "gallery") for page in (ROOT / folder).rglob("*.rst")]
PROSE = [*TUTORIALS, *(page for page in PAGES if not GENERATED & set(page.parts)), ROOT / "README.md"]


def blocks(source):
    """The cells of a tutorial: lists of lines between `# %%` marks."""
    return [block.strip("\n").split("\n") for block in re.split(r"^# %%.*\n", source.read_text(), flags=re.M)]


@pytest.fixture(params=TUTORIALS, ids=lambda path: path.stem)
def tutorial(request):
    return request.param


def headings(source):
    return re.findall(r"^# (.+)\n# -{3,}$", source.read_text(), flags=re.M)


def is_prose(line):
    return line.startswith("# ") and not set(line[2:]) <= set("-")


def test_title_is_a_question_and_the_answer_can_be_copied(tutorial):
    docstring = ast.get_docstring(ast.parse(tutorial.read_text()))
    assert docstring.split("\n")[0].endswith("?")
    introduction, _, answer = docstring.partition("**Answer:**")
    assert len(introduction.split("\n\n")) >= 2
    text, code, *lines = answer.split("\n\n")
    assert re.match(r" *[A-Z:`]", text), "an answer is a sentence: it begins with a capital, or with a name"
    assert len(re.findall(r"[.?!](\s|$)", text)) <= 3
    assert code == ".. code-block:: python"
    assert len("".join(lines).split("\n")) <= 6


SKELETON = ["Use it", "Check it by hand", "Count", "Time", "What goes wrong", "Takeaway"]


def test_skeleton(tutorial):
    told = headings(tutorial)
    assert told[0] == "Use it"
    assert "What goes wrong" in told
    assert told[-1] == "Takeaway"
    assert [heading for heading in told if heading in SKELETON] == [h for h in SKELETON if h in told]
    assert re.search(r"^\s*(assert |[\w.]*assert_\w+\()", tutorial.read_text(), flags=re.M)


def test_lengths(tutorial):
    assert len(tutorial.read_text().split("\n")) <= 300
    for block in blocks(tutorial)[1:]:
        code = [line for line in block if line.strip() and not line.startswith("#")]
        assert len(code) <= 25, block[0]
        listed = [line for line in block if line.startswith(("# *", "#   "))]
        assert len([*filter(is_prose, block)]) - len(listed) <= 7, block[0]


def test_each_cell_is_introduced(tutorial):
    for block in blocks(tutorial)[1:]:
        assert is_prose(block[0]), block[0]


def test_code_fits_the_column(tutorial):
    """88 columns: what the page shows at 1280 pixels without scrolling."""
    docstring, _, script = tutorial.read_text().partition('\n"""\n')
    code = [line for line in docstring.split("\n") if line.startswith("    ")]
    code += [line for line in script.split("\n") if not line.startswith("#")]
    assert [line for line in code if len(line) > 88] == []


def test_exceptions_are_a_list(tutorial):
    takeaway = tutorial.read_text().rpartition("# Takeaway\n")[2]
    assert len(re.findall(r"^# \* ", takeaway, flags=re.M)) >= 1
    assert re.search(r"^# (\* |  )", takeaway.rstrip("\n").split("\n")[-1]), "no epigram after the exceptions"


def test_stands_alone(tutorial):
    assert "__file__" not in tutorial.read_text()
    local = {path.stem for path in TUTORIALS}
    for node in ast.walk(ast.parse(tutorial.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] not in local


MEASURED = re.compile(
    r"\d\s?(ms|µs|us|ns|GFLOPs?|GFLOP/s|[KMG]i?B)\b|\d\s?(times|x|×|%|percent) (faster|slower|less|more)\b"
)


@pytest.mark.parametrize("source", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_measured_number_is_typed(source):
    prose = source.read_text()
    if source.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(prose)) or ""
        prose = docstring + "\n".join(line for line in prose.split("\n") if line.startswith("#"))
    assert not MEASURED.search(prose), MEASURED.search(prose)
