"""The grid of verdicts: its cells say what the atlas found, and its columns come from the data."""

import re

import pytest

from _ext.shown.grid import by_verdict, grid, note, together

RIGHT, REFUSES = {"outcome": "right"}, {"outcome": "refuses", "text": "NotImplementedError: no formula for <b>"}
WRONG = {"outcome": "wrong", "error": 0.25, "outcomes": ["wrong", "right"]}
MODES = ["jacobian_loop", "jacobian_reverse", "jacobian_forward", "jacobian", "jacobian_loop, vmap"]


def entry(name, *found, kind="operator"):
    modes = dict(zip([*MODES, "laplacian"], found, strict=True))
    return {"kind": kind, "name": name, "samples": [0, 1], "moving": [2, 1], "operators": [[name]] * 2, "modes": modes}


@pytest.fixture
def atlas():
    entries = [
        entry("fine", *[RIGHT] * 6),
        entry("bad_one", WRONG, WRONG, REFUSES, RIGHT, WRONG, RIGHT),
        entry("rows", *[RIGHT] * 4, REFUSES, RIGHT, kind="layer"),
        {"kind": "layer", "name": "skipped", "samples": [], "moving": [], "operators": [], "reason": "it is random"},
    ]
    return {"modes": {"jacobians": MODES, "laplacians": ["laplacian"]}, "entries": entries}


def row_of(html, name):
    (row,) = re.findall(rf"<tr><th scope='row'>(?:<a [^>]*>)?{name}(?:</a>)?</th>(.*?)</tr>", html)
    return re.findall(r"<td class='([^']*)'(?: colspan='(\d+)')?[^>]*>([^<]*)</td>", row)


def test_neighbours_of_one_verdict_are_one_cell(atlas):
    html = grid(atlas)
    assert row_of(html, "fine") == [
        ("atlas-right first", "4", "✓ ✓ ✓ ✓"),  # a mark for each column
        ("atlas-right", "", "✓"),
        ("atlas-right first", "", "✓"),
    ]
    assert row_of(html, "bad_<wbr>one") == [
        ("atlas-wrong first", "2", "✗ ✗"),
        ("atlas-refuses", "", "–"),
        ("atlas-right", "", "✓"),
        ("atlas-wrong", "", "✗"),
        ("atlas-right first", "", "✓"),
    ]


def test_each_column_is_a_recipe_of_the_data(atlas):
    heads = re.findall(r"data-recipe='([^']*)'", grid(atlas))
    recipes = {"jacobian_loop", "jacobian_reverse", "jacobian_forward", "jacobian", "laplacian"}
    assert set(heads) == {*recipes, "Jacobian in a batch"}
    atlas["modes"]["products"] = ["hvp", "vhp"]  # a group that no entry knows yet
    html = grid(atlas)
    assert "Hessian-vector product" in html
    assert ("atlas-untested first", "2", "") in row_of(html, "fine")


def test_messages_are_there_without_a_script(atlas):
    html = grid(atlas)
    assert "wrong by up to 0.25 on 1 of 2 samples; right with respect to the first tensor alone" in html
    assert "no formula for &lt;b&gt;" in html
    assert "not judged: it is random" in html
    for place in re.findall(r"href='#([\w-]+)'", html):
        assert f"id='{place}'" in html


def test_a_variant_with_another_verdict_is_marked_and_told(atlas):
    (first, second) = row_of(grid(atlas), "rows")[:2]
    assert first[0] == "atlas-right atlas-varies first"
    assert second[0] == "atlas-right"
    assert note(atlas["entries"][2], "jacobian_loop", ["jacobian_loop, vmap"]).startswith(
        "in a batch: refuses: NotImpl"
    )


def test_a_group_shows_its_gravest_verdict_in_a_batch_and_once_more(atlas):
    atlas["modes"]["once_more"] = ["laplacian, once more"]
    atlas["modes"]["jacobians"] = [*MODES, "jacobian, vmap"]
    fine, bad, *_ = atlas["entries"]
    fine["modes"] |= {"jacobian, vmap": RIGHT, "laplacian, once more": WRONG}
    html = grid(atlas)
    assert [marks for marks, _, _ in row_of(html, "fine")[1:]] == [
        "atlas-right",
        "atlas-right atlas-varies atlas-varies-wrong first",
        "atlas-wrong",
    ]
    assert "laplacian wrong by up to 0.25 on 1 of 2 samples" in html
    assert together(bad, ["jacobian_loop, vmap", "jacobian_reverse"]).startswith(
        "jacobian_loop, jacobian_reverse wrong"
    )
    assert "<td>1</td><td>1</td>" in html  # of the totals: in a batch, and the laplacian once more


def test_rows_may_stand_by_their_gravest_verdict(atlas):
    titles = re.findall(r"<th scope='rowgroup'[^>]*><span>(.*?)</span>", grid(atlas, by_verdict))
    assert titles == ["Some recipe is wrong: 1", "Some recipe refuses: 1", "Every recipe is right: 1", "Not judged: 1"]
    assert re.findall(r"<th scope='rowgroup'[^>]*><span>(.*?)</span>", grid(atlas)) == ["operator: 2", "layer: 2"]
