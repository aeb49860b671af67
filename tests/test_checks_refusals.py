"""`check_derivatives` leaves what the caller holds, and refuses what it cannot judge."""

import math

import pytest
import torch
from torch import nn

from funcdiff import check_derivatives


def test_what_the_caller_holds_stays_as_it_is():
    x = torch.tensor([1.0, 2.0])
    report = check_derivatives(lambda x: x.mul_(2).sin(), x)
    assert x.tolist() == [1.0, 2.0]
    assert report.mutates
    assert "in place" in report.advice


def test_float32_captured_by_a_closure_is_refused_with_the_way_out():
    network = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="pass the module itself"):
        check_derivatives(lambda x: network(x), torch.ones(2))
    with pytest.raises(TypeError, match="converts its input"):
        check_derivatives(lambda x: network(x.float()), torch.ones(2))


@pytest.mark.parametrize(
    ("func", "primal", "message"),
    [
        (torch.sin, torch.arange(3), "floating-point tensor in the primals, got torch.int64"),
        (torch.sin, 1.0, "in the primals, got float"),
        (torch.sin, torch.ones(2, dtype=torch.complex64), "complex"),
        (lambda x: x > 0, torch.ones(2), "floating-point tensor in the result, got torch.bool"),
        (lambda x: float(x), torch.ones(()), "in the result, got float"),
    ],
)
def test_what_cannot_be_differentiated_is_refused(func, primal, message):
    with pytest.raises(TypeError, match=message):
        check_derivatives(func, primal)


def test_a_point_outside_the_domain_is_refused():
    with pytest.raises(ValueError, match="to be finite"):
        check_derivatives(torch.log, torch.tensor([-1.0]))


def test_a_point_that_cannot_be_moved_and_no_direction_to_move_in_are_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        check_derivatives(torch.exp, torch.tensor([-math.inf]))
    with pytest.raises(ValueError, match="positive int"):
        check_derivatives(torch.sin, torch.ones(2), directions=0)


def test_errors_of_the_function_itself_pass():
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|size mismatch"):
        check_derivatives(lambda x: x @ x, torch.ones(2, 3, dtype=torch.float64))
