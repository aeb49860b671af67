import pytest

from _ext.shown import accuracy
from funcdiff.checks.registry import EXACT


@pytest.mark.parametrize("case", accuracy.cases(), ids=lambda case: case.name)
def test_every_recipe_gives_the_derivative_written_by_hand(case):
    errors = {name: accuracy.relative_error(got, want) for name, got, want in accuracy.trials(case)}
    scalar = case.problem.func(case.point).dim() == 0
    assert list(errors) == [entry.name for entry in EXACT if scalar or not entry.of_scalars]
    assert all(error <= 1e-10 for error in errors.values()), errors  # false for NaN too


def test_error_notices_a_wrong_entry_and_a_wrong_shape():
    error = accuracy.relative_error
    want = accuracy.torch.tensor([3.0, 4.0])
    assert error(want + 4e-3, want) == pytest.approx(1e-3, rel=1e-3)
    assert error(want[None], want) == float("inf")
    assert not error(want * float("nan"), want) <= 1e-10
