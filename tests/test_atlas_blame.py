"""Which operators the atlas blames, and the file in the package that says so."""

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from _tools.atlas import blame, data

ATLAS = data.read(Path(__file__).parents[1] / "docs" / "reference" / "atlas.json")
FILES = resources.files("funcdiff._safety").joinpath("wrong_in")
KNOWN = json.loads(FILES.joinpath("2.13.json").read_text())


def test_the_package_knows_what_the_atlas_found():
    assert blame.known_wrong(ATLAS) == KNOWN


@pytest.mark.parametrize(
    ("operator", "modes"),
    [
        ("native_layer_norm", {"hessian_reverse_over_forward", "hessian_forward_over_forward"}),
        ("native_layer_norm", {"hessian_forward_over_reverse", "hessian_reverse_over_reverse"}),  # with its weights
        ("native_batch_norm", {"hessian_reverse_over_forward", "hessian_forward_over_forward"}),
        ("native_batch_norm", {"hessian_forward_over_reverse", "hessian_reverse_over_reverse"}),
        ("_linalg_det", {"hessian_reverse_over_forward", "hessian_forward_over_forward", "hvp_reverse_over_forward"}),
        ("_linalg_slogdet", {"hessian_reverse_over_forward", "hessian_forward_over_forward"}),
        ("_linalg_solve_ex", {"hessian_reverse_over_forward", "hessian_forward_over_forward"}),
        ("linalg_householder_product", {"hessian_reverse_over_forward", "hessian_forward_over_forward"}),
        ("_cdist_forward", {"jacobian_reverse", "jacobian_batched_grad"}),
        ("cholesky_inverse", {"jacobian_forward"}),
        ("scatter_reduce", {"jacobian_forward", "hessian_forward_over_reverse"}),
        ("_linear_cross_entropy_batch_chunked", {"jacobian_forward", "hvp_double_backward"}),
    ],
)
def test_a_known_culprit_is_blamed(operator, modes):
    assert all(operator in KNOWN["modes"][mode] for mode in modes)


@pytest.mark.parametrize(
    ("operator", "mode"),
    [
        ("_cdist_forward", "jacobian_loop"),
        ("cholesky_inverse", "jacobian_reverse"),
        ("_linalg_det", "jacobian_forward"),
    ],
)
def test_a_culprit_is_blamed_in_no_mode_that_gets_it_right(operator, mode):
    assert operator not in KNOWN["modes"][mode]


@pytest.mark.parametrize(
    "operator",
    ["add", "sub", "mul", "div", "mm", "addmm", "bmm", "view", "sum", "tanh", "exp", "convolution", "_softmax", "gelu"],
)
def test_a_common_operator_is_blamed_in_no_mode_with_any_torch(operator):
    assert any(operator in names for entry in ATLAS["entries"] for names in entry["operators"])
    for file in FILES.iterdir():
        assert not any(operator in names for names in json.loads(file.read_text())["modes"].values())


@pytest.mark.parametrize("mode", data.mode_names(ATLAS))
def test_every_wrong_sample_is_explained(mode):
    wrong, _ = blame.by_outcome(ATLAS, mode)
    assert all(names & set(KNOWN["modes"][mode]) for case in wrong for names in case)


def test_one_culprit_explains_all_it_occurs_in_and_equals_share_the_blame():
    right = [{"mul"}, {"mul", "sin"}]
    assert blame.blamed([[{"norm"}], [{"norm", "mul"}, {"norm", "all", "mul"}]], right) == {"norm"}
    assert blame.blamed([[{"left", "right", "mul"}]], right) == {"left", "right"}
    assert blame.blamed([[{"mul"}]], [{"mul"}] * 9) == set()


def test_only_what_a_derivative_passes_through_is_recorded():
    def func(x, mask):
        positive = (x > 0).all().to(x.dtype)
        return F.layer_norm(torch.where(mask.logical_not(), x, positive), (3,)).sum()

    names = blame.operators_in(func, (torch.ones(3, dtype=torch.float64), torch.tensor([True, False, True])))
    assert names == {"where", "native_layer_norm", "sum"}


def test_what_another_operator_explains_does_not_count_against_an_innocent_one():
    layers = [[{"norm", "mm"}]] * 7
    assert blame.blamed([*layers, [{"mm"}]], [{"mm"}] * 18) == {"norm"}
    assert blame.blamed([*layers, *[[{"mm"}]] * 7], [{"mm"}] * 18) == {"norm", "mm"}
