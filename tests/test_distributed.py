"""Derivatives over several processes are those of one, whatever share of the work and of the data each has."""

import distributed_cases as cases
import pytest
import torch
from gang import Gang, passed
from torch.distributed.tensor import Replicate, Shard
from versions import since

CLOSE = 1e-10


@pytest.fixture(scope="module", params=[2, 3])
def gang(request):
    processes = Gang(request.param)
    yield processes
    processes.close()


@pytest.mark.parametrize("share", cases.SHARES)
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize(
    ("kind", "sharded"), [("plain", False), ("batch norm", True), ("layer norm", False), ("plain", True)]
)
def test_the_product_is_that_of_the_loss_over_all_data(gang, share, mean, kind, sharded):
    gaps, products = zip(*passed(gang(cases.product, share, mean, kind, sharded)), strict=True)
    assert max(gaps) < CLOSE
    for other in products[1:]:
        assert all(torch.equal(other[name], x) for name, x in products[0].items())


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    ("name", "func", "options", "placement"),
    [
        ("jacobian", "row", {"split": "outputs"}, Shard(0)),
        ("jacobian", "row", {"split": "inputs"}, Shard(1)),
        ("jacobian", "row", {}, Shard(1)),
        ("jacobian", "tall", {"gather": True}, None),
        ("jacobian", "number", {}, Replicate()),
        ("jacobian", "number", {"split": "inputs"}, Shard(0)),
        ("hessian", "row", {}, Shard(0)),
        ("hessian", "tall", {"chunk_size": 2}, Shard(0)),
        ("hessian", "number", {}, Shard(0)),
        ("hessian", "number", {"gather": True, "chunk_size": 1}, None),
        ("hessian", "layer norm", {}, Shard(0)),
    ],
)
def test_a_jacobian_and_a_hessian_are_those_of_one_process(gang, name, func, options, placement, sharded):
    for found, placements in passed(gang(cases.transform, name, func, options, sharded)):
        assert found < CLOSE
        assert placements == (None if placement is None else (placement,))


@pytest.mark.parametrize(
    ("name", "options"), [("jacobian", {"split": "outputs"}), ("jacobian", {"split": "inputs"}), ("hessian", {})]
)
def test_trees_go_in_and_come_out(gang, name, options):
    assert max(passed(gang(cases.trees, name, options))) < CLOSE


@pytest.mark.parametrize("name", ["batch_jacobian", "batch_hessian"])
@pytest.mark.parametrize("where", ["replicated", "sharded", "a DTensor everywhere"])
@pytest.mark.parametrize("count", [7, 2, 1])
def test_the_rows_of_a_batch_are_shared(gang, name, where, count):
    gaps, lengths = zip(*passed(gang(cases.rows, name, where, count)), strict=True)
    assert max(gaps) < CLOSE
    assert sum(lengths) == count


@pytest.mark.parametrize(
    "name", ["not contiguous", "expanded", "scalar", "one number", "requires grad", "linear", "mixed"]
)
def test_points_of_unusual_kinds(gang, name):
    assert max(passed(gang(cases.unusual, name))) < (1e-6 if name == "mixed" else CLOSE)


def test_half_precision_is_added_up_in_single_precision(gang):
    for dtype, error in passed(gang(cases.bfloat16)):
        assert dtype == torch.bfloat16
        assert error < 0.05


def test_weights_that_are_used_twice(gang):
    assert max(passed(gang(cases.shared_weights))) < CLOSE


def test_operators_take_turns(gang):
    assert max(passed(gang(cases.interleaved))) < CLOSE


def test_every_process_runs_the_same_solver(gang):
    results = passed(gang(cases.in_step))
    for values, expected, calls in results:
        assert values == results[0][0]
        assert values == pytest.approx(expected, rel=1e-8, abs=1e-10)
        assert calls == results[0][2]


@pytest.mark.parametrize("name", ["vmap", "grad"])
def test_inside_a_transform_it_is_refused(gang, name):
    for error in gang(cases.inside, name):
        assert "communicates, which vmap, grad" in error.text


RECIPES = [
    *("jacobian", "jacobian_reverse", "jacobian_batched_grad", "jacobian_loop"),
    *("hessian", "hessian_double_backward", "hvp", "hvp_operator", "hvp_double_backward"),
    *("hvp_reverse_over_reverse", "vhp"),
]


SQUEEZED = since("2.12", "no DTensor can be squeezed along a dimension")
HESSIAN = pytest.param("hessian", marks=SQUEEZED)


@pytest.mark.parametrize("name", [pytest.param(n, marks=SQUEEZED) if n.startswith("hessian") else n for n in RECIPES])
def test_recipes_take_sharded_arguments(gang, name):
    assert max(passed(gang(cases.sharded_arguments, name))) < CLOSE


@pytest.mark.parametrize("name", ["hvp", "jacobian", HESSIAN, "jacobian_loop"])
def test_recipes_take_the_parameters_of_a_network_under_fully_shard(gang, name):
    assert max(passed(gang(cases.fully_sharded, name))) < CLOSE
