"""The fuzz, briefly; `nox -s fuzz -- SEED NUMBER` runs as much of it as is wanted."""

import warnings

import pytest
import torch
from fuzz import run
from fuzz.functions import OPERATIONS

from funcdiff._automatic import choice
from funcdiff._safety.accusing import Check


@pytest.fixture(autouse=True)
def _torch_may_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what random functions call
        yield


@pytest.mark.slow
def test_random_functions_are_differentiated_right_and_none_is_accused():
    told = []
    outcomes = run.run(0, 100, tell=told.append)
    assert outcomes["wrong"] + outcomes["accused"] == 0, "\n".join(told)
    assert outcomes["right"] > 250


@pytest.mark.parametrize("seed", [712488, 721475, 722199])
def test_none_is_accused_of_a_factor_that_hardly_moves_of_rounding_or_of_itself(seed):
    told = []
    outcomes = run.run(seed, 1, tell=told.append)
    assert outcomes["wrong"] + outcomes["accused"] + outcomes["refused"] == 0, "\n".join(told)


def test_enough_operations():
    assert len(OPERATIONS) >= 250


def test_a_seed_repeats_its_function_and_its_findings():
    first, second = ([str(finding) for finding in run.judged(7)] for _ in range(2))
    assert first == second


def test_a_wrong_result_is_found(monkeypatch):
    monkeypatch.setitem(run.RECIPE, "jacobian", lambda func, x: torch.zeros((*func(x).shape, *x.shape)).to(x))
    assert run.run(0, 8, every=True, tell=lambda line: None)["wrong"] >= 4


def test_a_false_accusation_is_found(monkeypatch):
    monkeypatch.setattr(choice, "check", lambda *args: Check("wrong", 1.0))
    assert run.run(0, 8, every=True, tell=lambda line: None)["accused"] >= 4
