"""What a check of a first result may not accuse, and may not let pass: each kind was met in random functions."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from custom_functions import Forgetful, Rounded
from planted_faults import WrongJvp
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import choice
from funcdiff._automatic.candidates import RECIPES
from funcdiff._safety import verification
from funcdiff._safety.accusing import _TOO_LITTLE, Check, compared
from funcdiff._safety.verification import check
from funcdiff._torch.tape import sketch

X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


def found(func, derivative, kind, x=X):
    return check(func, [x], [derivative], kind, sketch(func, [x])).outcome


def plainly(func, x=X):
    return torch.autograd.functional.jacobian(func, x)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_roundings_of_a_zero_are_not_accused(size, dtype):
    x, weight = X.to(dtype), size * WEIGHT[0].to(dtype)
    rounding = torch.finfo(dtype).eps * size * torch.tensor([1.0, -0.5, 0.3]).to(dtype)
    for func in (lambda x: weight @ x + size, lambda x: size * (40 + 1e-9 * x.sum()).sigmoid()):
        assert found(func, rounding.diag(), "hessian", x) != "wrong"
        assert found(func, (1e8 * rounding).diag(), "hessian", x) == "wrong"


# What is held constant, or defined, beside an operation without a second derivative
MEANT = {
    "embedding_bag": lambda x: F.embedding_bag(torch.tensor([[0, 2], [1, 1]]), x.reshape(3, 1) * x.norm().detach()),
    "pdist": lambda x: F.pdist(torch.outer(x * x.detach().norm(), X.cos())),
    "multi_margin_loss": lambda x: F.multi_margin_loss(x * x.norm().detach(), torch.tensor(1), p=2),
    "cdist": lambda x: torch.cdist(x[None] * x.detach().norm(), WEIGHT),
    "a custom function": lambda x: F.pdist(torch.outer(Rounded.apply(3 * x) + x, X.cos())),
    "a custom function alone": lambda x: Rounded.apply(3 * x).sin(),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MEANT)
def test_of_a_meant_constant_one_derivative_by_plain_autograd_is_enough(name, dtype):
    def func(x):
        return MEANT[name](x.double()).to(dtype)

    x = X.to(dtype)
    right = plainly(func, x)
    assert found(func, right, "jacobian", x) != "wrong"
    if dtype != torch.bfloat16 and name != "a custom function alone":  # whose own differences are zero
        assert found(func, torch.zeros_like(right), "jacobian", x) == "wrong"


def test_not_a_number_agrees_with_nothing():
    def func(x):  # plain autograd multiplies a zero by infinity
        return torch.where(x.abs() > 0, x.sin() + 0 * x.detach(), (x - x).sqrt())

    assert plainly(func).isnan().any()
    assert found(func, torch.zeros(3, 3).double(), "jacobian") == "wrong"
    assert found(func, X.cos().diag(), "jacobian") == "agrees"


FOREIGN = {
    "after": lambda x: WrongJvp.apply(x) + 30 * x.square(),
    "before": lambda x: (WrongJvp.apply(x) / 20 + x).sin(),
    "beside": lambda x: torch.cat([WEIGHT.to(x) @ x * 8, WrongJvp.apply(x) * x]),
    "in a sum": lambda x: WrongJvp.apply(x).sum()[None] + 20 * x.exp().sum()[None],
    "in a mean": lambda x: (WrongJvp.apply(x / 4) + x).square().mean()[None],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_of_a_function_of_the_users_nearly_right_is_not_right(name):
    func = FOREIGN[name]
    right, wrong = plainly(func), torch.func.jacfwd(func)(X)
    assert 0.01 < (right - wrong).abs().max() / right.abs().max() < 0.5
    assert found(func, right, "jacobian") == "agrees"
    assert found(func, wrong, "jacobian") != "agrees"
    assert_close(fd.jacobian(func)(X), right)
    assert_close(vmap(fd.jacobian(func))(torch.stack([X, X + 0.1]))[0], right)


def test_where_its_derivative_is_zero_a_function_of_the_users_shows_nothing():
    def func(x):  # zero at the row by which the plan is made
        return WrongJvp.apply(x).clamp(min=0) + 0 * x.square()

    rows = torch.stack([X.abs(), -X.abs()])
    assert found(func, torch.zeros(3, 3).double(), "jacobian", rows[1]) == "undecided"
    assert_close(fd.batch_jacobian(func)(rows), torch.stack([plainly(func, row) for row in rows]))


def test_in_bfloat16_a_zero_is_not_borne_out():
    x = X.bfloat16()
    assert found(lambda x: WrongJvp.apply(x) + 3, torch.zeros(3, 3).bfloat16(), "jacobian", x) != "agrees"


def test_the_outcome_does_not_depend_on_unwritten_memory(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, shape: self.new_full(shape, 1e30))
    for dtype in (torch.float64, torch.float32):
        x = X.to(dtype)
        func = lambda x: (WEIGHT.to(x) @ x).exp()  # noqa: E731  # as the others
        assert found(func, fd.hessian_double_backward(func)(x), "hessian", x) == "agrees"


@pytest.mark.parametrize("frequency", [1e5, 1e6, 1e7, 1e8, 1e9, 1e12])
def test_functions_rougher_than_the_steps_are_not_accused(frequency):
    rough = {
        "alone": lambda x: (frequency * x).sin(),
        "beside": lambda x: torch.cat([(frequency * x).sin() / frequency, x.square()]),
        "around": lambda x: x.square() * (1 + (frequency * x).cos() / 10),
        "inside": lambda x: (x + (frequency * x).sin() / frequency).exp(),
        "a sum": lambda x: (frequency * x).sin().sum()[None] + 1e3 * x.sum()[None],
    }
    for shift in (0.0, 0.01, 0.1, 0.37, 1.3, 2.0):
        for func in rough.values():
            x = X + shift * math.pi
            assert found(func, plainly(func, x), "jacobian", x) != "wrong"
            assert found(func, fd.hessian_double_backward(func)(x), "hessian", x) != "wrong"


@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("frequency", [3, 100, 1000])
def test_a_small_term_that_forward_mode_misses_is_seen_beside_a_large_one(size, frequency):
    def func(x):
        return size * (frequency * x[0]).sin() / frequency**2 + WrongJvp.apply(x).square().sum()

    right = torch.autograd.functional.hessian(func, X)
    wrong = torch.func.hessian(func)(X)
    assert (right - wrong).abs().max() > 1e-5 * right.abs().max()
    assert found(func, right, "hessian") == "agrees"
    assert found(func, wrong, "hessian") == "wrong"


@pytest.mark.parametrize("conditioned", [1e2, 1e5, 1e9])
def test_amplified_rounding_excuses_no_adjoint_that_forgets_its_input(conditioned):
    def func(x):
        matrix = torch.eye(3) / conditioned + torch.outer(x, x)
        return Forgetful.apply(torch.linalg.solve(matrix, WEIGHT[:3].sum(1)) / conditioned).sum()

    assert found(func, torch.autograd.functional.hessian(func, X), "hessian") == "wrong"


def bent(x):
    """An ELU in many places: its second derivative jumps between the points of any differences."""
    return F.elu(torch.linspace(-1, 1, 2000)[:, None] + x).square().sum()


def test_a_second_derivative_that_jumps_near_the_point_is_no_reason_to_compute_it_every_way(monkeypatch):
    asked = []

    def counted(name, recipe):
        return lambda *args, **options: asked.append(name) or recipe(*args, **options)

    every = {name: counted(name, recipe) for name, recipe in RECIPES["hessian"].items()}
    monkeypatch.setitem(RECIPES, "hessian", every)
    monkeypatch.setattr(choice, "UNCORRECTED", {})
    monkeypatch.setattr(choice, "check", lambda *_: Check("undecided", 0.03, f"0.03 apart, {_TOO_LITTLE}"))
    x = torch.tensor([0.3, -0.7])
    assert_close(fd.hessian(bent)(x), torch.autograd.functional.hessian(bent, x))
    assert len(set(asked)) == 2  # by Taylor rules and by torch's formulas, which agree
    asked.clear()
    fd.hessian(bent)(x)
    assert len(set(asked)) <= 1


@pytest.mark.parametrize("fault", [0.0, 0.02])
def test_shorter_steps_tell_a_kink_of_the_gradient_from_a_fault(fault):
    def gradient(t):  # which bends between these steps and the first ones
        return torch.tensor([t if abs(t) < 0.005 else 1.02 * t, 0.5 * t])

    seen = sketch(torch.sin, [torch.zeros(2)])
    answer = torch.tensor([1.0 - fault, 0.5])
    found = compared(answer, gradient, replace(seen, cuts=False))
    assert found.outcome == ("undecided" if fault else "agrees")


def test_one_product_by_plain_autograd_bears_out_what_taylor_rules_give(monkeypatch):
    x = torch.tensor([0.3, -0.7])
    too_little = Check("undecided", 0.03, f"0.03 apart, {_TOO_LITTLE}")
    monkeypatch.setattr(verification, "compared", lambda *_: too_little)
    hessian = torch.autograd.functional.hessian(bent, x)
    for answer, same in ((hessian, True), (0.98 * hessian, False)):
        verdict = check(bent, [x], [answer], "hessian", sketch(bent, [x]))
        assert verdict.unsure
        assert verdict.by_plain.unsure is not same
    fd.clear_plans()
    monkeypatch.setitem(RECIPES, "hessian", {"hessian_taylor": RECIPES["hessian"]["hessian_taylor"]})
    assert_close(fd.hessian(bent)(x), hessian)
    assert "as plain autograd has it" in fd.explain(fd.hessian(bent), x).plan["hessian_taylor"].check


@pytest.mark.parametrize(("wide", "narrow"), [(1.0, -1.0), (0.1, 3.0), (2.0, -1.5), (1.0, 5.0)])
def test_slopes_that_contradict_each_other_bear_nothing_out(wide, narrow):
    """As across the kinks of a wide network: the error is as large as any gap."""
    seen = sketch(torch.sin, [torch.zeros(2)])
    step = seen.epsilon**0.25
    slope = {step: wide, step / 2: narrow}
    found = compared(torch.tensor([0.3]), lambda t: torch.tensor([t * slope.get(abs(t), narrow)]), seen)
    assert found.outcome == "undecided"


@pytest.mark.parametrize("name", ["hessian", "hessian_diagonal", "laplacian"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_function_that_raises_on_one_side_of_the_point_is_not_checked_and_not_refused(name, sign):
    def func(x):
        if sign * (x - X)[0] < 0:
            raise ValueError("outside of the domain")
        return x.pow(3).sum()

    fd.clear_plans()
    hessian = torch.diag(6 * X)
    expected = {"hessian": hessian, "hessian_diagonal": hessian.diag(), "laplacian": hessian.trace()}[name]
    assert_close(getattr(fd, name)(func)(X), expected)
