"""A fault on one process ends the call on every process, with an error that names it."""

import re

import distributed_faults as faults
import pytest
import torch
from distributed_cases import point
from gang import Failed, Gang, passed
from versions import since

from funcdiff import distributed

TIMEOUT = 4.0


@pytest.fixture(scope="module")
def gang():
    processes = Gang(3)
    yield processes
    processes.close()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("shape", r"expects the same shapes on every rank, got ranks 0, 1: \[\(4,\)\]; rank 2: \[\(3,\)\]"),
        ("dtype", "expects the same dtypes on every rank, .*rank 2: .*torch.float32"),
        ("structure", "expects the same structure of the arguments on every rank, .*rank 2: .*"),
        ("values", "expects the same values of the arguments on every rank, .*; rank 2: numbers with the digest"),
        ("function", "expects the same function on every rank, got ranks 0, 1: cubes .*; rank 2: squares "),
        ("buffers", "expects the same function on every rank, .*; rank 2"),
        ("samples", "expects the same options on every rank, .*given.*; rank 2: .*none"),
        ("call", "expects the same call on every rank, got ranks 0, 1: hvp_operator; rank 2: jacobian"),
        ("options", "expects the same options on every rank, .*outputs.*; rank 2: .*inputs"),
    ],
)
def test_what_differs_is_named_on_every_process(gang, name, told):
    for error in gang(faults.other, name):
        assert isinstance(error, Failed)
        assert error.kind == "ValueError"
        assert re.search(told, error.text), error.text


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [("raises", "ValueError", "function"), ("argument", "TypeError", "expected a floating-point differentiated")],
)
def test_an_error_of_one_process_reaches_all(gang, name, kind, told):
    *others, own = gang(faults.other, name)
    assert own.kind == kind
    assert told in own.text
    for error in others:
        assert isinstance(error, Failed)
        assert own.text in error.text


def test_an_error_in_a_product_reaches_all_and_the_next_product_is_right(gang):
    *others, own = passed(gang(faults.late))
    assert own[0].startswith("TypeError: expected a tangent with the dtype of its primal")
    assert all(told.startswith("RuntimeError: hvp_operator failed on rank 2 with TypeError") for told, _ in others)
    assert all(right for _, right in (own, *others))


@pytest.mark.parametrize("change", ["sign", "last bit", "scale"])
def test_another_vector_on_one_process_is_refused(gang, change):
    for error in gang(faults.tangents, change):
        assert "hvp_operator expects the same tangents on every rank, got ranks 0, 1" in error.text


def test_nan_of_one_process_reaches_all(gang):
    for product in passed(gang(faults.not_a_number)):
        assert product.isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "how", "where"),
    [
        (3, "killed", "plan"),
        (3, "killed", "product"),
        (2, "left", "product"),
        (2, "sleeps", "plan"),
        (3, "sleeps", "product"),
        (4, "killed", "product"),
    ],
)
def test_a_process_that_is_missing_is_named_within_the_timeout(size, how, where):
    gang = Gang(size, timeout=TIMEOUT)
    try:
        *left, gone = gang(faults.lost, how, where, patience=30.0)
        for told, seconds in left:
            assert re.search(rf"rank {size - 1} did not take part|at least one of ranks [^:]*\b{size - 1} did", told)
            assert size > 3 or "at least" not in told
            assert told.startswith("hvp_operator on rank" if where == "product" else "jacobian on rank")
            assert seconds < TIMEOUT
        if how == "sleeps":  # and when it comes back it learns of it
            assert "the others stopped waiting" in gone[0]
        else:
            assert gone is None
    finally:
        gang.close()


def test_a_group_of_some_processes(gang):
    *members, other = gang(faults.subset)
    for product in members:
        torch.testing.assert_close(product, 2 * 6 * point().square())
    assert other.kind == "ValueError"
    assert "of which this process, rank 2, is a member" in other.text


WRAPPED = [
    *("module_function", "inside", "jacobian", "hessian_reverse_over_reverse", "hvp", "hvp_double_backward"),
    *("hvp_operator", "batch_jacobian", "batch_jacobian_summed", "laplacian", "jacobian_sparse", "prepare"),
    "distributed",
]


@pytest.mark.parametrize("name", WRAPPED)
def test_a_module_in_ddp_is_refused_wherever_it_hides(gang, name):
    for error in gang(faults.wrapped, name):
        assert isinstance(error, Failed), error
        assert "Use its .module" in error.text, error


@pytest.mark.parametrize("name", ["hvp", "hvp_double_backward", "hessian", "jacobian", "distributed"])
def test_the_hooks_of_fully_shard_are_refused_with_the_remedy(gang, name):
    for error in gang(faults.hooked, name):
        assert "func, parameters = module_function(module)" in error.text, error


@since("2.13", "fully_shard cannot gather parameters inside a transform")
def test_a_jacobian_by_name_with_respect_to_the_input_goes_through_the_hooks(gang):
    for found in passed(gang(faults.hooked, "jacobian_reverse")):
        assert found.shape == (1, 4)


def test_the_older_fsdp_is_refused(gang):
    for error in gang(faults.flat):
        assert error.kind == "ValueError"
        assert "Use torch.distributed.fsdp.fully_shard instead" in error.text


def test_without_a_group_the_remedy_is_named():
    with pytest.raises(RuntimeError, match=r"initialised process group\. Call torch\.distributed\.init_process"):
        distributed.hvp_operator(faults.cubes, point())
