"""What changed between versions of torch: the scripts still print what was kept, and the page says what they show."""

import json
from pathlib import Path

import pytest
import torch
from sphinx.cmd.build import build_main
from sphinx.errors import ExtensionError

from _ext.shown import changes as page
from _tools.atlas import changes, scripts
from _tools.atlas.cases import Sample

DOCS = Path(__file__).parents[1] / "docs"
KEPT = page.load(DOCS / "reference" / "changes.json")
VERSION = torch.__version__.partition("+")[0]
RIGHT, WRONG = ({"outcome": name, "expected": "1", "obtained": "2"} for name in ("right", "wrong"))
REFUSES = {"outcome": "refuses", "text": "NotImplementedError: no formula"}
ABSENT = {"outcome": "refuses", "text": "AttributeError: module 'torch' has no attribute 'new'"}


def script(operation, before, after, mode="jacobian_forward", text="print(1)"):
    printed = {"2.9.0": before, "2.10.0": after}
    return {"operation": operation, "operator": operation, "mode": mode, "script": text, "printed": printed}


@pytest.mark.skipif(all(VERSION not in kept["printed"] for kept in KEPT), reason="nothing is kept of this torch")
@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: f"{kept['operation']}-{kept['mode'].replace(', ', '-')}")
def test_a_script_still_has_the_verdict_that_was_kept(kept):
    assert scripts.outcome(kept["script"])["outcome"] == kept["printed"][VERSION]["outcome"]
    assert len(kept["script"]) <= scripts.LONGEST + 100  # one recipe's name may be longer than another's


def test_each_operation_and_recipe_has_one_script():
    keys = [(kept["operation"], kept["mode"]) for kept in KEPT]
    assert len(set(keys)) == len(keys)
    assert {"2.13.0", "2.14.1", "2.15.0"} <= set(page.versions(KEPT))


def test_a_script_that_a_version_has_not_run_fails_the_build(tmp_path):
    path = tmp_path / "changes.json"
    lacking = script("b", RIGHT, WRONG)
    del lacking["printed"]["2.9.0"]
    path.write_text(changes.written({"scripts": [script("a", RIGHT, WRONG), lacking]}))
    with pytest.raises(ExtensionError, match=r"torch 2\.9\.0 has not run the script of b"):
        page.load(path)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (WRONG, RIGHT, "Fixed"),
        (RIGHT, WRONG, "Newly wrong"),
        (REFUSES, WRONG, "Newly wrong"),
        (REFUSES, RIGHT, "New formulas"),
        (WRONG, REFUSES, "An error instead of a wrong result"),
        (RIGHT, REFUSES, "No longer supported"),
        (RIGHT, RIGHT, None),
        (ABSENT, RIGHT, None),  # a new operation is no change of a derivative
    ],
)
def test_kinds_of_change(before, after, kind):
    found = {k for k in page.KINDS if page.changed([script("a", before, after)], "2.9.0", "2.10.0", k)}
    assert found == ({kind} if kind else set())


def test_the_recipes_of_an_operation_stand_together_the_shortest_script_first():
    both = [script("a", WRONG, RIGHT, text="longer"), script("a", WRONG, RIGHT, "hessian_taylor, vmap", "short")]
    (same,) = page.changed(both, "2.9.0", "2.10.0", "Fixed").values()
    assert [page.named(one["mode"]) for one in same] == ["hessian_taylor in a batch", "jacobian_forward"]


def test_an_error_that_versions_share_stands_once():
    kept = script("a", REFUSES, REFUSES)
    kept["printed"]["2.11.0"] = RIGHT
    errors = [text for node in page.entry("a", [kept]) if (text := node.astext()).startswith("The error")]
    assert errors == ["The error of torch 2.9.0 and 2.10.0: NotImplementedError: no formula"]


def test_no_script_shows_a_result_that_the_atlas_leaves_out(monkeypatch):
    x, args = torch.tensor([[0.3]], dtype=torch.float64), (None, None, 1, 1, 1, 1, 1e-5)
    norm = torch.native_group_norm  # zero for one number, unlike the mean, which it returns too
    sample = Sample(lambda first, args, kwargs: norm(first, *args)[0], (x, args, {}), norm)
    monkeypatch.setattr(changes, "samples", lambda key: [sample])
    mode = "jacobian_forward"
    entry = {"kind": "operator", "name": "native_group_norm", "samples": [0], "modes": {mode: {"outcome": "right"}}}
    assert not [*changes._formulas(entry, [mode])]


def test_a_script_for_another_recipe_differs_in_what_it_calls_alone():
    shown = 'import torch\nfrom torch.func import jacrev\n\nf = torch.sin\nprint("obtained", jacrev(f)(x))\n'
    written = changes._by("jacobian_forward", "jacobian_reverse", shown)
    assert written == shown.replace("jacrev", "jacfwd")


def test_a_new_formula_is_found_and_shown_by_a_script():
    key = {"kind": "operator", "name": "exp", "samples": [0], "moving": [1], "operators": [["exp"]]}
    modes = {"jacobians": ["jacobian_forward"]}
    here = {"modes": modes, "entries": [key | {"modes": {"jacobian_forward": {"outcome": "right"}}}]}
    there = {"modes": modes, "entries": [key | {"modes": {"jacobian_forward": REFUSES}}]}
    (found,) = changes.of_formulas(here, there)
    assert found["operation"] == "torch.exp"
    assert scripts.outcome(found["script"])["outcome"] == "right"
    assert not [*changes.of_formulas(there, here)]


def test_a_new_script_is_run_and_the_shape_of_the_file_kept(tmp_path):
    made = {"scripts": []}
    new = {"operator": "a", "operation": "a", "mode": "jacobian_loop", "script": "raise ValueError"}
    changes.added(made, iter([new]))
    changes.run(made)
    assert made["scripts"][0]["printed"][VERSION] == {"outcome": "refuses", "text": "ValueError:"}
    assert json.loads(changes.written(made)) == made


def test_the_page_shows_each_step_with_scripts_and_what_they_printed(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "conf.py").write_text("extensions = ['_ext.shown.changes']\nproject = 'test'\n")
    kept = [script("torch.a", WRONG, RIGHT), script("torch.b", REFUSES, WRONG)]
    (source / "changes.json").write_text(changes.written({"scripts": kept}))
    (source / "index.rst").write_text("Home\n====\n\n.. torch-changes:: changes.json\n")
    assert build_main(["-qnW", "-b", "html", str(source), str(tmp_path / "out")]) == 0
    html = (tmp_path / "out" / "index.html").read_text()
    assert "This page compares torch 2.9.0 and 2.10.0." in html
    assert "From torch 2.9.0 to 2.10.0" in html
    assert "<code>torch.a</code>: jacobian_forward" in html
    assert "The error of torch 2.9.0: NotImplementedError: no formula" in html
