"""`check_derivatives` against functions whose derivatives are known, and against planted faults."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from planted_faults import WrongDoubleBackward, WrongJvp
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from funcdiff import check_derivatives, problems
from funcdiff._safety.differences import mixed, slope
from funcdiff._safety.examination import Examination
from funcdiff.checks.registry import RECIPES

ALL = {verdict.mode for verdict in check_derivatives(torch.sin, torch.tensor(0.3)).verdicts}
FIRST = {mode for mode in ALL if mode.startswith("jacobian")}
FORWARD = {mode for mode in ALL if "forward" in mode}
AUTOMATIC = {"jacobian", "hessian", "hvp", "laplacian"}


def quadratic(x):
    return (x * torch.arange(1.0, 5.0, dtype=x.dtype)).square().sum()


def test_differences_of_the_exponential_know_their_error():
    estimate = slope(lambda t: torch.tensor(t, dtype=torch.float64).exp().reshape(1))
    assert abs(estimate.value.item() - 1) <= estimate.error.item() < 1e-11
    assert not estimate.kink.any()


@pytest.mark.parametrize("offset", [0.0, 1e-7])
def test_a_kink_is_seen_where_central_differences_agree(offset):
    estimate = slope(lambda t: torch.tensor([abs(t) + offset], dtype=torch.float64))
    assert estimate.kink.all()
    assert estimate.error.item() >= 1


def test_mixed_difference_of_a_product():
    estimate = mixed(lambda s, t: torch.tensor([math.sin(s + 1) * math.exp(2 * t)], dtype=torch.float64))
    assert abs(estimate.value.item() - 2 * math.cos(1)) <= estimate.error.item() < 1e-8


@pytest.mark.parametrize(
    ("func", "primal"),
    [
        (torch.sin, torch.tensor([0.5, -1.0, 2.0])),
        (torch.exp, torch.tensor([[0.5, -1.0], [2.0, 0.0]])),
        (quadratic, torch.tensor([1.0, 0.0, -2.0, 3.0])),
        (lambda x: x.prod(), torch.tensor([1.0, 2.0, -2.0, 3.0])),
        (lambda x: 1 / x, torch.tensor([1e-3, 1.0, 1e3])),
        (lambda x: x.log(), torch.tensor([1e-4, 1.0, 50.0])),
        (lambda x: (30 * x).sin(), torch.zeros(3)),
        (lambda x: x @ x.T, torch.arange(6.0).view(2, 3)),
        (F.relu, torch.tensor([-0.5, 1.0, 1e-3])),
        (lambda x: x.square() * 0 + 7, torch.ones(2)),
        (lambda x: 3 * x + 1e6, torch.ones(2)),
        (lambda x: (1e-8 * x).tanh(), torch.tensor([1e6, -2e7])),
    ],
)
def test_no_mode_is_accused_on_what_torch_does_right(func, primal):
    report = check_derivatives(func, primal)
    assert not report.wrong
    assert set(report.right) >= FIRST


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "problem",
    [
        problems.linear_map(torch.linspace(-1, 2, 6, dtype=torch.float64).view(2, 3)),
        problems.tanh_layer(torch.linspace(-1, 2, 6, dtype=torch.float64).view(2, 3), torch.ones(2).double()),
        problems.quadratic_form(torch.linspace(-1, 2, 9, dtype=torch.float64).view(3, 3)),
        problems.softmax_cross_entropy(1),
        problems.sine_sum(),
    ],
    ids=lambda problem: problem.name,
)
def test_the_reference_is_the_derivative_by_hand(problem, seed):
    x = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    examination = Examination(lambda t: problem.func(x + t).reshape(-1), 3, modes=RECIPES)
    torch.testing.assert_close(examination.jacobian.value, problem.jacobian(x).reshape(-1, 3), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(examination.hessian.value, problem.hessian(x).reshape(-1, 3, 3), rtol=1e-9, atol=1e-9)
    assert {verdict.outcome for verdict in examination.verdicts()} == {"right"}


def test_without_a_right_jacobian_the_values_alone_judge_the_hessian():
    examination = Examination(lambda t: WrongJvp.apply(t + 0.3) * t.detach(), 2, modes=RECIPES)
    # The automatic recipes see at this point a derivative that is zero, of a function that is not constant.
    assert {v.outcome for v in examination.verdicts() if v.mode.startswith("jacobian")} == {"wrong", "refuses"}
    expected = torch.zeros(2, 2, 2, dtype=torch.float64)
    expected[0, 0, 0] = expected[1, 1, 1] = 2 * math.cos(0.3)
    torch.testing.assert_close(examination.hessian.value, expected, rtol=1e-7, atol=1e-7)


def test_a_report_on_a_sine_counts_and_agrees():
    report = check_derivatives(torch.sin, torch.tensor([0.5, 1.0]))
    assert report.ok
    assert set(report.right) == ALL
    assert max(verdict.error for verdict in report.verdicts) < 1e-10
    assert report["hessian_forward_over_reverse"].asymmetry == 0
    assert 0 < report.evaluations < 200


def test_a_sign_error_in_a_jvp_is_found_and_named():
    report = check_derivatives(lambda x: WrongJvp.apply(x.exp()).square(), torch.tensor([0.1, -0.3, 0.4]))
    forward = FORWARD
    assert set(report.wrong) == forward
    assert set(report.right) == ALL - forward
    assert report["jacobian_forward"].error == pytest.approx(2)
    assert report.responsible == ("WrongJvp",)
    assert "WrongJvp" in report.advice
    assert not report.ok


def test_a_sign_error_in_a_double_backward_is_found_and_named():
    report = check_derivatives(WrongDoubleBackward.apply, torch.tensor([0.1, -0.3, 0.4]))
    assert set(report.right) >= FIRST
    assert {"hessian_reverse_over_reverse", "hvp_double_backward"} <= set(report.wrong)
    assert {"hessian_reverse_over_forward", "hvp_reverse_over_forward"} <= set(report.right)
    assert report.responsible == ("WrongDoubleBackward",)


def test_no_grad_inside_is_named_wrong_where_forward_mode_looks_through_it():
    def func(x):
        with torch.no_grad():
            scale = x.sum()
        return x * scale

    report = check_derivatives(func, torch.tensor([1.0, 2.0]))
    assert "jacobian_reverse" in report.wrong
    assert "jacobian_forward" in report.right


def test_layer_norm_is_named():
    network = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))
    report = check_derivatives(network, torch.linspace(-1, 1, 12).view(3, 4))
    assert report.responsible == ("torch.nn.functional.layer_norm",)
    assert {"hessian_reverse_over_forward", "hessian_forward_over_forward"} <= set(report.wrong)
    assert {"hessian_forward_over_reverse", "hessian_reverse_over_reverse"} <= set(report.right)
    assert report["hessian_forward_over_forward"].asymmetry is not None


def test_layer_norm_with_its_weights_defeats_every_batched_hessian():
    def func(x, weight):
        return F.layer_norm(x, (4,), weight).sin()

    report = check_derivatives(func, torch.linspace(-1, 2, 12).view(3, 4).sin(), torch.tensor([0.5, -1.0, 2.0, 1.5]))
    assert {"hessian_forward_over_reverse", "hessian_reverse_over_reverse"} <= set(report.wrong)
    assert {"hvp_forward_over_reverse", "hvp_reverse_over_reverse", "hvp_double_backward"} <= set(report.right)
    assert set(report.right) >= AUTOMATIC
    assert report.responsible == ("torch.nn.functional.layer_norm",)


def test_a_detached_factor_is_wrong_in_every_mode_and_the_advice_says_so():
    report = check_derivatives(lambda x: x * x.detach(), torch.tensor([1.0, 2.0]))
    assert set(report.wrong) >= FIRST
    assert report["jacobian_loop"].error == pytest.approx(0.5)
    assert "detach" in report.advice


def test_cdist_in_batched_reverse_mode():
    report = check_derivatives(lambda x: torch.cdist(x, x.flip(0) ** 2), torch.linspace(-1, 2, 12).view(3, 4))
    assert "jacobian_reverse" in report.wrong
    assert "jacobian_loop" in report.right
    assert report.responsible == ("torch.functional.cdist",)


def test_an_operation_that_needs_symmetric_matrices_is_not_blamed():
    def func(x):
        symmetric = x @ x.T + torch.eye(3, dtype=x.dtype)
        return F.layer_norm(torch.linalg.cholesky(symmetric), (3,)) @ torch.linalg.eigvalsh(symmetric)

    report = check_derivatives(func, torch.linspace(-1, 2, 9).view(3, 3).sin())
    assert report.responsible == ("torch.nn.functional.layer_norm",)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)

    def forward(self, x):
        with sdpa_kernel(SDPBackend.MATH):
            return self.layer(x)


@pytest.mark.slow
def test_a_transformer_encoder_layer():
    torch.manual_seed(0)
    report = check_derivatives(Encoder(), torch.randn(2, 5, 16))
    assert {"hessian_reverse_over_forward", "hessian_forward_over_forward"} <= set(report.wrong)
    assert {"hessian_forward_over_reverse", "hessian_reverse_over_reverse", *FIRST, *AUTOMATIC} <= set(report.right)
    assert "torch.nn.functional.layer_norm" in report.responsible


def test_fused_attention_refuses_and_the_text_is_kept():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    report = check_derivatives(layer, torch.randn(2, 5, 16))
    assert "jacobian_reverse" in report.right
    assert not report.wrong
    assert report["jacobian_forward"].outcome == "refuses"
    assert "forward AD" in report["jacobian_forward"].detail


def test_batch_norm_in_training_and_in_evaluation():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(6, 4)
    report = check_derivatives(network, x)
    assert {"jacobian_loop", "jacobian_batched_grad"} <= set(report.right)
    assert report["jacobian_reverse"].outcome == "refuses"
    assert not report.wrong
    assert network[1].num_batches_tracked == 0
    assert set(check_derivatives(network.eval(), x).right) == ALL


def test_parameters_as_primals_and_integers_left_alone():
    def loss(weights, x, classes):
        return F.cross_entropy(x @ weights["w"] + weights["b"], classes)

    weights = {"w": torch.randn(4, 3), "b": torch.zeros(3)}
    report = check_derivatives(loss, weights, torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
    assert report.subject.startswith("loss: R^35 -> R^1")
    assert set(report.right) == ALL


def test_a_large_network_is_seen_through_random_directions():
    network = nn.Sequential(nn.Linear(300, 200), nn.GELU(), nn.Linear(200, 100))
    report = check_derivatives(network, torch.randn(3, 300))
    assert "along 8 random directions" in report.subject
    assert set(report.right) == ALL
    assert report.evaluations < 400


def test_randomness_is_undecided_and_the_generator_untouched():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    report = check_derivatives(nn.Dropout(), torch.ones(20))
    assert {verdict.outcome for verdict in report.verdicts} == {"undecided"}
    assert "randomness" in report.advice
    assert not report.ok
    assert torch.equal(before, torch.get_rng_state())


def test_kinks_are_undecided():
    report = check_derivatives(torch.abs, torch.tensor([0.0, 1.0]))
    assert {verdict.outcome for verdict in report.verdicts} == {"undecided"}
    assert "kink" in report["jacobian_forward"].detail
    assert "kink" in check_derivatives(F.elu, torch.zeros(1))["hessian_forward_over_reverse"].detail


def test_a_report_prints_as_a_table():
    report = check_derivatives(lambda x: WrongJvp.apply(x), torch.ones(2))
    text = repr(report)
    assert "jacobian_forward" in text
    assert "advice: avoid" in text
    assert max(map(len, text.splitlines()[:-2])) <= 80
    html = report._repr_html_()
    assert html.count("<tr") == len(ALL) + 1
    assert "&lt;lambda&gt;" in html


@pytest.mark.slow
def test_no_warning_escapes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_derivatives(Encoder(), torch.randn(1, 3, 16))
