"""The guides run while the site is built; here we see that they cover what they should and notice what they must."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from _ext.pages import diagrams, executed
from _ext.shown import bad_input, recipe_answers, what_works, which_recipe
from funcdiff._torch.messages import CUDNN, REMEDIES, TOO_LARGE

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs" / "guides"
PAGES = [page for part in ("start", "guides", "explanation") for page in (ROOT / "docs" / part).rglob("*.rst")]
REFERENCE = [*(ROOT / "docs" / "reference").glob("*.rst")]
LABELS = {
    label for page in PAGES + REFERENCE for label in re.findall(r"^\.\. _([\w-]+):$", page.read_text(), flags=re.M)
}


def sections(page):
    """Title and body of each section of a page."""
    parts = re.split(r"^(\S.*)\n[~=-]{4,}$", page.read_text(), flags=re.M)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_a_snippet_is_a_program_of_its_own():
    first = executed.run("import torch\nx = torch.rand(2)\nprint(x)\n")
    again = executed.run("import torch\nprint(torch.rand(2))\n")
    assert first.error is None
    assert first.printed == again.printed  # seeded
    explained = "import torch, funcdiff\nf = funcdiff.hessian(torch.sin)\n{}print(funcdiff.explain(f, torch.ones(2)))\n"
    assert "agrees" in executed.run(explained.format("f(torch.ones(2))\n")).printed
    assert "not checked yet" in executed.run(explained.format("")).printed
    assert isinstance(executed.run("x").error, NameError)
    assert isinstance(executed.run("import warnings\nwarnings.warn('look out')\n").error, UserWarning)


@pytest.mark.parametrize("change", ["torch.set_default_dtype(torch.float64)", "torch.set_grad_enabled(False)"])
def test_a_snippet_that_changes_torch_is_a_fault(change):
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        assert "leaves torch" in executed.run(f"import torch\n{change}\n").text
    finally:
        torch.set_default_dtype(before[0])
        torch.set_grad_enabled(before[1])


def test_a_page_notices_that_torch_has_changed():
    silent = executed.run("x = 1")
    other = executed.run("raise ValueError('another text')")
    assert executed.fault_of_error(silent, "a text") == "expected 'a text', got no error"
    assert "got ValueError: another text" in executed.fault_of_error(other, "a text")
    assert not executed.fault_of_error(other, "another ...")
    assert "another text" in executed.fault_of_run(other, "")
    mended = executed.run("wrong = right = 1.0")
    assert executed.fault_of_wrong(mended, "") == "what was wrong is right now"
    assert "must leave" in executed.fault_of_wrong(silent, "")


@pytest.mark.parametrize(
    ("wrong", "right", "different"),
    [
        (torch.ones(2), torch.ones(2) + 1e-7, False),
        (torch.ones(2), torch.zeros(2), True),
        (torch.ones(1, 2), torch.ones(2), True),
        (torch.tensor(torch.nan), torch.tensor(0.0), True),
        (torch.tensor(torch.nan), torch.tensor(torch.nan), False),
        ({"a": 1.0}, {"a": 2.0}, True),
        ((1.0,), (1.0, 2.0), True),
    ],
)
def test_what_counts_as_different(wrong, right, different):
    assert executed.differ(wrong, right) is different


def test_the_quoted_text_may_leave_out_what_varies():
    assert executed.quotes("one ... three", "zero one\n two three")
    assert not executed.quotes("three ... one", "one two three")


def test_printed_sentences_are_folded_and_tables_are_not():
    sentence, table = "word " * 30, "a" * 60 + "  " + "b" * 60
    folded = executed.folded(f"{sentence}\n{table}\nshort\n")
    assert table in folded.split("\n")
    assert max(len(line) for line in folded.split("\n") if line != table) <= executed.WIDTH
    assert folded.replace("\n", " ").split() == [*sentence.split(), *table.split(), "short"]
    last_column = " " * 80 + "goes on in this line"
    assert executed.folded(f"{table}\n{last_column}\n") == f"{table}\n{last_column}\n"


def code(text):
    """The lines of the snippets of a page."""
    for block in re.findall(r"^\.\. (?:runs|raises|misleads)::\n((?:\n|   .*\n?)+)", text, flags=re.M):
        yield from (line.removeprefix("   ") for line in block.split("\n"))


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "which_recipe"], ids=lambda page: page.stem)
def test_code_fits_the_column(page):
    assert not [line for line in code(page.read_text()) if len(line) > executed.WIDTH]


def introduced(text):
    """For each snippet, whether a sentence that ends in a colon leads to it."""
    return [
        before.rstrip().endswith(":")
        for before in re.split(r"^\.\. (?:runs|raises|misleads)::$", text, flags=re.M)[:-1]
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "which_recipe"], ids=lambda page: page.stem)
def test_a_sentence_leads_to_each_snippet(page):
    assert all(introduced(page.read_text())), introduced(page.read_text())


def test_a_long_line_and_a_snippet_without_a_sentence_are_noticed():
    page = "A sentence.\n\n.. runs::\n\n   " + "x" * 100 + "\n\nIt says:\n\n.. runs::\n\n   y\n"
    assert max(map(len, code(page))) == 100
    assert introduced(page) == [False, True]


TEXTS = [
    "Trying to use forward AD with",
    "_scaled_dot_product_flash_attention_for_cpu_backward is not implemented",
    "the derivative for '_cdist_backward' is not implemented",
    "calling .item() on a Tensor",
    "data-dependent control flow",
    "operators that can support dynamic shape",
    "inplace arithmetic(self, *extra_args) is not possible",
    "called random operation while in randomness error mode",
    "would mutate a captured Tensor",
    "Batch norm got a batched tensor as input",
    "expected 2D or 3D input (got 1D input)",
    "Dimension out of range",
    "Batching rule not implemented for aten::lstm.input",
    "Double backwards is not supported for CuDNN RNNs",
    "element 0 of tensors does not require grad",
    "appears to not have been used in the graph",
    "Trying to backward through the graph a second time",
    "You are attempting to call Tensor.requires_grad_()",
    "it must override the setup_context staticmethod",
    "does not have vmap support",
    "You must implement the jvp function",
    "don't yet support saved tensor hooks",
    "does not currently support double backward",
    "got an unexpected keyword argument",
    "Cannot access data pointer of Tensor that doesn't have storage",
    "Nested forward mode AD is not supported",
    "more than one element of the written-to tensor",
    "There is a performance drop",
    "only Tensors of floating point dtype can require gradients",
    "can't multiply sequence by non-int of type 'float'",
    "arg_spec must not be None",
]


def test_every_known_text_has_a_section_with_its_remedy():
    pages = [page for page in (GUIDES / "troubleshooting").glob("*.rst") if page.stem != "index"]
    told = {title.strip("`"): body for page in pages for title, body in sections(page)}
    for text in TEXTS:
        (body,) = [body for title, body in told.items() if text in title][:1]
        remedy = body.partition(".. runs::")[2]
        assert re.search(r"assert", remedy), text
    raising = [title for title, body in told.items() if ".. raises::" in body]
    assert len(raising) >= 25
    assert len(raising) == sum(page.read_text().count(".. raises::") for page in pages)


def test_each_silent_failure_has_a_cause_a_way_to_notice_it_and_a_remedy():
    failures = {title: body for title, body in sections(GUIDES / "silent_failures.rst") if ".. misleads::" in body}
    assert len(failures) >= 28
    for title, body in failures.items():
        parts = [body.find(part) for part in (".. misleads::", "*How to notice:*", "*What to use:*")]
        assert min(parts) >= 0, title
        assert parts == sorted(parts), title
        assert explained_first(body), title


def explained_first(body):
    """Whether a section begins with a cause in words, before it introduces code."""
    cause, *_ = body.strip().split("\n\n")
    return not cause.startswith((":", "..")) and not re.match(r"(In t|T)his (code|function) ", cause)


def test_a_section_on_an_error_begins_with_the_cause():
    for page in (GUIDES / "troubleshooting").glob("*.rst"):
        for title, body in sections(page):
            if ".. raises::" in body:
                assert explained_first(body), (page.name, title)


def test_a_page_that_runs_says_on_which_torch():
    for page in PAGES:
        text = page.read_text()
        ran = re.search(r"^\.\. (runs|raises|misleads)::", text, flags=re.M)
        assert bool(ran) == (".. ran-on::" in text), page


def test_each_need_leads_somewhere():
    needs = re.split(r"^#\. ", (GUIDES / "needs.rst").read_text(), flags=re.M)[1:]
    assert len(needs) >= 30
    for need in needs:
        documents = re.findall(r":doc:`[^`<]+</([^`>]+)>`", need)
        labels = re.findall(r":ref:`[^`<]+<([\w-]+)>`", need)
        assert documents or labels, need
        assert re.match(r":(?:doc|ref):`[^`<]+\? <", need), need  # the question is the link
        assert LABELS.issuperset(labels), need
        for document in documents:
            assert (ROOT / document.replace("tutorials", "gallery")).with_suffix(".py").exists(), need


def test_answers_name_recipes_and_tutorials():
    for answer in recipe_answers.ANSWERS:
        assert (ROOT / "gallery" / f"{answer.tutorial}.py").exists()
        assert answer.recipe in "".join(which_recipe._cells(answer))


@pytest.mark.parametrize(
    "picture", [which_recipe.picture(recipe_answers.ANSWERS), *map(diagrams.picture, diagrams.PICTURES)]
)
def test_pictures_are_well_formed_and_described(picture):
    drawing, *_ = ElementTree.fromstring(picture)  # and a list for phones
    assert len(drawing.attrib["aria-label"]) > 50
    left, top, width, height = map(float, drawing.attrib["viewBox"].split())
    for text in drawing.iter("text"):
        assert left <= float(text.attrib["x"]) <= width
        assert top <= float(text.attrib["y"]) <= height


@pytest.fixture(scope="module")
def matrix():
    return what_works.matrix()


def outcomes(entry):
    return {mode: found if isinstance(found, str) else found["outcome"] for mode, found in entry["modes"].items()}


@pytest.mark.slow
def test_the_matrix_is_complete(matrix):
    assert len({entry["name"] for entry in matrix["entries"]}) == len(matrix["entries"]) >= 22
    for entry in matrix["entries"]:
        assert list(entry["modes"]) == matrix["modes"]
        for found in entry["modes"].values():
            assert found["outcome"] in ("right", "refuses", "undecided") or found["error"] > 1e-6
            assert ("text" in found) == (found["outcome"] in ("refuses", "undecided"))
    assert json.loads(json.dumps(matrix)) == matrix


OVERLAP = {
    "layer norm, with respect to weight and input": "nn.LayerNorm",
    "LSTM": "nn.LSTM",
    "GRU": "nn.GRU",
    "RNN": "nn.RNN",
    "logdet": "logdet",
    "linalg.solve": "linalg.solve",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "operation"), OVERLAP.items())
def test_the_matrix_agrees_with_the_atlas(matrix, name, operation):
    atlas = json.loads((ROOT / "docs" / "reference" / "atlas.json").read_text())
    (ours,) = [outcomes(entry) for entry in matrix["entries"] if entry["name"] == name]
    (known,) = [outcomes(entry) for entry in atlas["entries"] if entry["name"] == operation]
    shared = ours.keys() & known.keys()
    assert shared == set(matrix["modes"]) - {"batch_jacobian"}
    assert {mode: ours[mode] for mode in shared} == {mode: known[mode] for mode in shared}


@pytest.mark.slow
def test_the_matrix_shows_every_refusal_of_the_package(matrix):
    # After those of vmap over rows, batch_jacobian goes on in a loop: they are shown with recipes by name.
    texts = [*matrix["texts"], *(message for *_, message in bad_input.messages())]
    for fragment, remedy in REMEDIES:
        if fragment in ("calling .item() on a Tensor", "data-dependent control flow"):
            continue  # inside a derivative torch's text names both, and so does the remedy of that text
        if remedy in (TOO_LARGE, CUDNN):
            continue  # of the machine, not of a function
        assert any(remedy[:100] in text for text in texts), fragment


@pytest.mark.slow
def test_a_function_is_judged_by_what_its_author_means(matrix):
    rows = {entry["name"]: outcomes(entry) for entry in matrix["entries"]}
    assert set(rows["detach"].values()) == {"right"}
    assert rows["no_grad"]["jacobian_reverse"] == "right"
    assert rows["no_grad"]["jacobian_forward"] == "wrong"
    assert set(rows["attention, MATH kernel"].values()) == {"right"}
    in_place = rows["writes into its input"]
    carried = {
        "jacobian",
        "hessian",
        "batch_jacobian",
        "jacobian_taylor",
        "hessian_taylor",
        "hessian_diagonal",
        "laplacian",
    }
    assert {mode for mode, outcome in in_place.items() if outcome == "right"} == carried
