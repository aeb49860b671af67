"""What is known to be wrong with the torch that runs, and what stands for a torch that the atlas does not cover."""

import json

import pytest
import reading
import torch
import torch.nn.functional as F

import funcdiff as fd
from funcdiff._automatic import explaining
from funcdiff._safety import known_wrong, obstacles

FOUND = {
    "2.90": {"jacobian_forward": ["sin"], "jacobian_batched_grad": [], "jacobian_forward, vmap": ["cos"]},
    "2.100": {"jacobian_forward": [], "jacobian_batched_grad": ["sin"]},
}


@pytest.fixture(autouse=True)
def files(monkeypatch, tmp_path):
    for version, modes in FOUND.items():
        (tmp_path / f"{version}.json").write_text(json.dumps({"torch": f"{version}.0", "modes": modes}))
    monkeypatch.setattr(known_wrong, "_FILES", tmp_path)


def running(monkeypatch, version):
    """As if that torch ran."""
    wrong, note = known_wrong.known(version)
    monkeypatch.setattr(obstacles, "WRONG", wrong)
    monkeypatch.setattr(explaining, "NOTE", note)
    fd.clear_plans()


def left_out(func=torch.sin):
    explained = fd.explain(fd.jacobian(func), torch.ones(3))
    return {c.name for c in explained.plan.candidates if "torch gets" in c.obstacle}, reading.told(explained)


def test_the_data_of_the_torch_that_runs():
    assert known_wrong.known("2.90.1+cpu").wrong["jacobian_forward"] == {"sin"}
    assert known_wrong.known("2.100.0").wrong["jacobian_forward"] == frozenset()
    assert not known_wrong.known("2.100.0").note


def test_what_was_not_judged_with_a_torch_is_as_with_any_other():
    assert known_wrong.known("2.100.0").wrong["jacobian_forward, vmap"] == {"cos"}


def test_an_unknown_torch_has_every_fault():
    wrong, note = known_wrong.known("2.101.0a0+git1234")
    assert wrong["jacobian_forward"] == wrong["jacobian_batched_grad"] == {"sin"}
    assert "torch 2.101" in note
    assert "2.90, 2.100" in note


def test_plans_read_them_and_say_so_where_the_torch_is_unknown(monkeypatch):
    running(monkeypatch, "2.90.0")
    names, told = left_out()
    assert names == {"jacobian_forward"}
    assert "does not cover" not in told
    running(monkeypatch, "2.100.0")
    assert left_out()[0] == {"jacobian_batched_grad"}
    running(monkeypatch, "3.0.0")
    names, told = left_out()
    assert names == {"jacobian_forward", "jacobian_batched_grad"}
    assert "does not cover torch 3.0: a recipe that is wrong with any of torch 2.90, 2.100 is left out." in told


@pytest.mark.parametrize(
    ("variant", "derivative"),
    [
        (", vmap", lambda func, x: fd.batch_hessian(func)(torch.stack([2 * x, x]))),
        (", once more", lambda func, x: fd.hessian(func)(x.requires_grad_())),
        (", once more", lambda func, x: torch.func.grad(lambda x: fd.hessian(func)(x).sum())(x)),
    ],
    ids=["in a batch", "once more", "once more, in a transform"],
)
def test_what_is_wrong_in_a_batch_or_once_more_is_not_chosen_there(monkeypatch, variant, derivative):
    def func(x):
        return x.tan().sum()

    made = []
    keep = obstacles.Obstacles.obstacle
    monkeypatch.setattr(
        obstacles.Obstacles, "obstacle", lambda self, name: made.append((name, keep(self, name))) or made[-1][1]
    )
    named = "hessian_forward_over_reverse"
    monkeypatch.setattr(obstacles, "WRONG", {named + variant: frozenset({"tan"})})
    fd.clear_plans()
    fd.hessian(func)(torch.ones(3))
    assert (named, "") in made
    made.clear()
    derivative(func, torch.ones(3))
    assert (named, "torch gets tan wrong") in made


def test_an_error_advises_no_recipe_that_the_plan_calls_wrong_by_another_name():
    def func(x):  # torch has no forward mode of it, and its gradient is right of normalised numbers alone
        rows = torch.outer(x, torch.linspace(-1, 1, 3, dtype=x.dtype))
        return F.ctc_loss(rows[:, None], torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2]))

    with pytest.raises(RuntimeError, match="torch gets _ctc_loss wrong") as refused:
        fd.jacobian(func)(torch.tensor([0.3, -0.7, 1.1, 0.4], dtype=torch.float64))
    assert "jacobian_reverse" not in str(refused.value)
