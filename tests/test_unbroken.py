"""What belongs together on a line stays there, and the text is the same."""

import pytest
from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.utils import new_document

from _ext.pages.mathml import _mathml
from _ext.pages.unbroken import Unbroken, pieces


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("It takes 3.50 µs, or 12 GiB.", ["3.50 µs", "12 GiB"]),
        ("10,240 MFLOP at 1.25 GB/s", ["10,240 MFLOP", "1.25 GB/s"]),
        ("an error of 2.0e-07", ["2.0e-07"]),
        ("16 inputs in 3 batches", []),
    ],
)
def test_a_number_is_not_split_from_its_unit(text, whole):
    found = pieces(text)
    assert [part.astext() for part in found if isinstance(part, nodes.inline)] == whole
    assert "".join(part.astext() for part in found) == text


def test_a_formula_keeps_the_mark_after_it_and_code_is_left_alone():
    page = new_document("page", get_default_settings())
    formula, code = nodes.math("", "x"), nodes.literal("", "sleep 3 s")
    page += nodes.paragraph("", "", nodes.Text("of "), formula, nodes.Text(", in "), code)
    Unbroken(page).run()
    (whole,) = page.findall(nodes.inline)
    assert whole.children == [formula, nodes.Text(",")]
    assert page.astext() == "of x, in sleep 3 s"
    assert [part.astext() for part in code.children] == ["sleep 3 s"]


@pytest.mark.parametrize(("tex", "spaces"), [(r"\sin x", 1), (r"\sin(x)", 0)])
def test_a_function_stands_apart_from_its_argument_unless_a_bracket_does(tex, spaces):
    assert _mathml(tex, None).count("<mspace") == spaces
