"""The derivative atlas: its data, its reproductions, its judge on planted faults, its page."""

from pathlib import Path

import pytest
import torch
from planted_faults import WrongDoubleBackward, WrongJvp, WrongOnceMore
from sphinx.errors import ExtensionError

from _ext.shown import atlas
from _tools.atlas import data, run, scripts
from _tools.atlas.blame import known_wrong
from _tools.atlas.cases import Sample
from _tools.atlas.repro import reproduction
from funcdiff._safety.culprits import operations

DOCS = Path(__file__).parents[1] / "docs"
DATA = atlas.load(DOCS / "reference" / "atlas.json")
ENTRIES = {(entry["kind"], entry["name"]): entry for entry in DATA["entries"]}
FORWARD_INSIDE = {"hessian_reverse_over_forward", "hessian_forward_over_forward"}


def wrong(name, kind="operator"):
    return set(data.wrong(ENTRIES[kind, name]))


def test_coverage():
    judged = [entry["kind"] for entry in DATA["entries"] if "modes" in entry]
    assert judged.count("operator") >= 400
    assert judged.count("layer") >= 60


def test_every_entry_is_judged_by_every_mode_or_says_why_not():
    assert data.mode_names(DATA) == run.NAMES
    for entry in DATA["entries"]:
        if "modes" in entry:
            assert list(entry["modes"]) == run.NAMES
            assert all(found["text"] for found in entry["modes"].values() if found["outcome"] != "right")
            assert len(entry["samples"]) == len(entry["operators"]) == len(entry["moving"]) > 0
        else:
            assert entry["reason"]


def test_writing_loses_nothing(tmp_path):
    copy = tmp_path / "atlas.json"
    copy.write_text(data.written(DATA))
    assert data.read(copy) == DATA


@pytest.mark.parametrize(
    "name",
    [
        "nn.functional.layer_norm",
        "nn.functional.instance_norm",
        "nn.functional.batch_norm",
        "linalg.det",
        "logdet",
        "linalg.slogdet",
        "linalg.solve",
        "linalg.householder_product",
    ],
)
def test_forward_inside_is_wrong_where_it_is_known_to_be(name):
    assert wrong(name) >= FORWARD_INSIDE


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("cdist", "jacobian_reverse"),
        ("cholesky_inverse", "jacobian_forward"),
        ("scatter_reduce.prod", "hessian_forward_over_reverse"),
        ("nn.functional.linear_cross_entropy.chunked", "hessian_forward_over_forward"),
    ],
)
def test_other_known_faults(name, mode):
    assert mode in wrong(name)


def test_the_layers_with_those_operations_inherit_their_faults():
    assert wrong("nn.LayerNorm", "layer") >= FORWARD_INSIDE
    assert wrong("nn.BatchNorm1d", "layer") >= FORWARD_INSIDE
    assert wrong("nn.TransformerEncoderLayer", "layer") >= FORWARD_INSIDE


@pytest.mark.parametrize("name", ["sin", "matmul", "softmax", "nn.functional.gelu", "linalg.inv"])
def test_nothing_is_wrong_where_the_derivatives_are_classical(name):
    assert not wrong(name)


@pytest.mark.parametrize(
    "repro", DATA["reproductions"], ids=lambda repro: f"{repro['operator']}-{repro['modes'][0].replace(', ', '-')}"
)
def test_a_reproduction_still_reproduces(repro):
    found = scripts.numbers(repro["script"])
    assert found is not None, "the script fails: make the atlas anew (nox -s atlas)"
    assert scripts.differ(*found), "this torch has mended it: make the atlas anew (nox -s atlas)"
    assert len(repro["script"].rstrip().splitlines()) <= 11
    assert len(repro["script"]) <= scripts.LONGEST


def test_every_culprit_has_a_reproduction():
    blamed = {name for names in known_wrong(DATA)["modes"].values() for name in names}
    without = {
        "_prelu_kernel",  # wrong under vmap only where the batch has as many rows as there are outputs, else it refuses
        "_native_batch_norm_legit",  # torch's inner forms of native_batch_norm, which has one
        "_batch_norm_with_update",
        "linalg_lu_solve",  # reads memory that nobody wrote: what it gives differs from run to run
    }
    assert blamed - {repro["operator"] for repro in DATA["reproductions"]} <= without


def test_reproductions_name_faults_of_the_table():
    cases = {entry["name"]: wrong(entry["name"], entry["kind"]) for entry in DATA["entries"]}
    for repro in DATA["reproductions"]:
        assert set(repro["modes"]) & cases[repro["case"]]


@pytest.mark.parametrize("mode", ["jacobian", "hessian", "hvp", "laplacian"])
def test_the_automatic_recipes_are_right_or_refuse(mode):
    assert not [entry["name"] for entry in DATA["entries"] if mode in data.wrong(entry)]


@pytest.mark.parametrize(
    ("func", "faulty"),
    [
        (WrongJvp.apply, {"jacobian_forward", "hvp_reverse_over_forward"}),
        (WrongDoubleBackward.apply, {"hessian_reverse_over_reverse", "hvp_double_backward"}),
        (torch.sin, set()),
    ],
)
def test_a_planted_fault_is_found_and_what_is_right_beside_it_is_not_accused(func, faulty):
    sample = Sample(func, (torch.tensor([0.1, -0.3, 0.4], dtype=torch.float64),))
    verdicts = {verdict.mode: verdict.outcome for verdict in run.judge(sample)}
    accused = {mode for mode, outcome in verdicts.items() if outcome == "wrong"}
    assert accused >= faulty
    assert bool(accused) == bool(faulty)
    assert verdicts["jacobian_loop"] == verdicts["jacobian_reverse"] == "right"


@pytest.mark.parametrize(
    ("func", "recipe", "variant"),
    [
        (WrongOnceMore.apply, "hessian_reverse_over_reverse", "once more"),
        (lambda x: torch.linalg.det(x.reshape(2, 2)), "hessian_forward_over_reverse", "vmap"),
        (lambda x: torch.linalg.det(x.reshape(2, 2)), "hvp_forward_over_reverse", "once more"),
    ],
)
def test_a_fault_that_shows_in_a_batch_or_once_more_alone_is_found(func, recipe, variant):
    sample = Sample(func, (torch.tensor([1.1, -0.3, 0.4, 0.8], dtype=torch.float64),))
    verdicts = {v.mode: v.outcome for v in run.judge(sample, {recipe, f"{recipe}, {variant}"})}
    assert verdicts == {recipe: "right", f"{recipe}, {variant}": "wrong"}


def test_a_fresh_judgement_agrees_with_the_data():
    keys = [("operator", "logdet"), ("operator", "sin"), ("layer", "nn.GELU")]
    fresh = run.with_reproductions(run.run(*keys))
    assert [(entry["kind"], entry["name"]) for entry in fresh["entries"]] == keys
    for entry in fresh["entries"]:
        assert set(data.wrong(entry)) == wrong(entry["name"], entry["kind"])
    assert {repro["operation"] for repro in fresh["reproductions"]} == {"torch.logdet"}


def test_named_modes_are_judged_alone_and_the_others_kept():
    key = ("operator", "sin")
    kept = DATA | {"entries": [ENTRIES[key]]}
    again = run.run(key, only=["laplacian", "jacobian_loop"], kept=kept)
    assert again["entries"] == kept["entries"]
    with pytest.raises(SystemExit, match=r"torch 2\.0"):
        run.run(key, only=["laplacian"], kept=kept | {"torch": "2.0.0"})
    with pytest.raises(SystemExit, match="samples of sin changed"):
        run.run(key, only=["laplacian"], kept=kept | {"entries": [ENTRIES[key] | {"samples": [7]}]})


def test_what_a_file_would_lack_is_named_before_anything_is_judged(tmp_path):
    path = tmp_path / "atlas.json"
    path.write_text(data.written(DATA | {"modes": {"jacobians": ["jacobian_loop"]}, "entries": []}))
    with pytest.raises(SystemExit, match=r"lacks .*jacobian_batched_grad"):
        run._main(path, tmp_path, "laplacian")


def test_where_blame_changed_the_cases_with_that_operator_are_judged_again():
    before = {"modes": {"hessian_taylor": ["sin"], "jacobian_loop": []}}
    again = run.touched(DATA, before, {"modes": {"hessian_taylor": ["sin", "_linalg_det"], "jacobian_loop": []}})
    assert ("operator", "linalg.det") in again
    assert ("operator", "sin") not in again
    assert not run.touched(DATA, before, before)


def test_a_reproduction_is_refused_where_nothing_is_wrong():
    subject = Sample(torch.sin, (torch.ones(3, dtype=torch.float64),)).subject(3)
    sine = next(operation for operation in operations(subject, 3) if operation.name == "torch.sin")
    assert reproduction(sine, "jacobian_forward", ["jacobian_forward"], ["jacobian_loop"]) is None


def test_random_operations_are_not_judged():
    assert "random" in ENTRIES["operator", "normal"]["reason"]


@pytest.mark.parametrize("order", [0, 1])
def test_the_functions_that_are_not_judged_are_computed_to_seven_digits(order):
    name, point = f"bessel_j{order}", torch.tensor(5.0025, dtype=torch.float64)
    angles = torch.arange(64, dtype=torch.float64) * torch.pi / 32
    integral = torch.cos(order * angles - point * angles.sin()).mean()  # exact: periodic and smooth
    assert 1e-8 < (getattr(torch.special, name)(point) - integral).abs() < 1e-6
    assert "seven digits" in run.entry(("operator", f"special.{name}"))["reason"]


def test_a_stale_atlas_fails_the_build(tmp_path):
    old = tmp_path / "atlas.json"
    old.write_text(data.written(DATA | {"torch": "2.0.0+cpu"}))
    with pytest.raises(ExtensionError, match="nox -s atlas"):
        atlas.load(old)


def test_the_page_builds_with_table_links_and_scripts(tmp_path):
    from sphinx.cmd.build import build_main

    source = tmp_path / "source"
    source.mkdir()
    (source / "conf.py").write_text("extensions = ['_ext.shown.atlas']\nproject = 'test'\nexclude_patterns = []\n")
    for name in ("atlas.rst", "atlas.json"):
        (source / name).write_text((DOCS / "reference" / name).read_text())
    (source / "index.rst").write_text("Home\n====\n\n.. toctree::\n\n   atlas\n   glossary\n   torch_versions\n")
    (source / "glossary.rst").write_text("Glossary\n========\n\n.. glossary::\n\n   recipe\n      A function.\n")
    (source / "torch_versions.rst").write_text("Versions\n========\n")
    assert build_main(["-qnW", "-b", "html", str(source), str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "atlas.html").read_text()
    assert page.count("<tr>") > len(DATA["entries"])
    assert 'href="#atlas-row-' in page.replace("'", '"')
    assert "right with respect to the first tensor alone" in page
    assert "atlas.js" in page
    assert "atlas.js" not in (tmp_path / "out" / "index.html").read_text()
    assert page.count("highlight-python") == len(DATA["reproductions"]) > 0
