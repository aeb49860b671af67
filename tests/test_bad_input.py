import runpy
from pathlib import Path

import pytest
import torch

import funcdiff as fd

BAD_INPUT = runpy.run_path(str(Path(__file__).parents[1] / "docs/_ext/shown/bad_input.py"))


@pytest.mark.parametrize("case", BAD_INPUT["CASES"], ids=lambda case: case.name)
def test_bad_input_is_refused_and_left_as_it_was(case):
    before = BAD_INPUT["X"].clone(), BAD_INPUT["ROWS"].clone()
    with pytest.raises(case.error, match=case.text) as refusal:
        case.provoke()
    assert refusal.type is case.error
    assert BAD_INPUT["X"].equal(before[0])
    assert BAD_INPUT["ROWS"].equal(before[1])


def test_a_remedy_is_given_once_and_names_its_cause():
    with pytest.raises(RuntimeError, match="randomness=") as refusal:
        fd.hessian_forward_over_forward(lambda x: x * torch.rand_like(x))(BAD_INPUT["X"])
    assert str(refusal.value).count("torch said") == 1
    assert "randomness error mode" in str(refusal.value.__cause__)


def test_an_error_of_the_function_itself_comes_through():
    def fail(x):
        raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match=r"^out of cheese$"):
        fd.jacobian_reverse(fail)(BAD_INPUT["X"])


def test_the_messages_of_the_site_are_those_of_the_errors():
    messages = BAD_INPUT["messages"]()
    assert [name for name, _, _ in messages] == [case.name for case in BAD_INPUT["CASES"]]
    assert ("chunk_size 0", "ValueError") in {(name, error) for name, error, _ in messages}
    assert all(message for _, _, message in messages)
