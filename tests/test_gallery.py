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


def test_title_is_a_question_and_the_answer_stands_up_front(tutorial):
    docstring = ast.get_docstring(ast.parse(tutorial.read_text()))
    assert docstring.split("\n")[0].endswith("?")
    assert "**Answer:**" in docstring


def test_skeleton(tutorial):
    text = tutorial.read_text()
    headings = re.findall(r"^# (.+)\n# -{4,}$", text, flags=re.M)
    assert headings[-1] == "Takeaway"
    assert "What breaks" in headings
    assert re.search(r"^\s*(assert |[\w.]*assert_\w+\()", text, flags=re.M)


def test_lengths(tutorial):
    lines = tutorial.read_text().split("\n")
    assert len(lines) <= 250
    for block in blocks(tutorial)[1:]:
        code = [line for line in block if line.strip() and not line.startswith("#")]
        prose = [line for line in block if line.startswith("# ") and not set(line[2:]) <= set("-")]
        assert len(code) <= 25, block[0]
        assert len(prose) <= 7, block[0]


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
