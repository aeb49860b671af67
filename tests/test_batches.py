import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import planning
from funcdiff.recipes import summed

WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.5, -1.0]], dtype=torch.float64)
ROWS = torch.linspace(-1, 1.5, 15, dtype=torch.float64).reshape(5, 3)
SUMMED = [fd.batch_jacobian_summed, fd.batch_hessian_summed]


def cubes(weight, x):
    return weight @ x**3


def batched_cubes(weight, rows):
    return rows**3 @ weight.T


def jacobian_by_hand(rows):
    return 3 * WEIGHT * rows[:, None] ** 2


def hessian_by_hand(rows):
    return torch.diag_embed(6 * WEIGHT * rows[:, None])


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5])
@pytest.mark.parametrize(("in_dims", "rows"), [((None, 0), ROWS), ((None, 1), ROWS.T), ((None, -1), ROWS.T)])
def test_in_dims_are_those_of_vmap(in_dims, rows, chunk_size):
    options = {"argnums": 1, "in_dims": in_dims, "chunk_size": chunk_size}
    assert_close(fd.batch_jacobian(cubes, **options)(WEIGHT, rows), jacobian_by_hand(ROWS))
    assert_close(fd.batch_hessian(cubes, **options)(WEIGHT, rows), hessian_by_hand(ROWS))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_in_dims_of_trees(chunk_size):
    recipe = fd.batch_jacobian(lambda p, x: p["a"] * p["b"] * x, 1, ({"a": 0, "b": None}, 0), chunk_size=chunk_size)
    got = recipe({"a": ROWS, "b": WEIGHT[0]}, ROWS)
    assert_close(got, torch.diag_embed(ROWS * WEIGHT[0]))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_batch_of_parameters(chunk_size):
    weights = torch.stack([WEIGHT, 2 * WEIGHT, WEIGHT + 1])
    got = fd.batch_jacobian(cubes, 0, (0, None), chunk_size=chunk_size)(weights, ROWS[0])
    assert_close(got, torch.einsum("ij,k->ijk", torch.eye(2, dtype=ROWS.dtype), ROWS[0] ** 3).expand(3, 2, 2, 3))


@pytest.mark.parametrize("jacobian", [fd.jacobian_forward, fd.jacobian_loop])
def test_the_recipe_to_map_can_be_chosen(jacobian):
    got = fd.batch_jacobian(cubes, 1, (None, 0), jacobian=jacobian)(WEIGHT, ROWS)
    assert_close(got, jacobian_by_hand(ROWS))
    got = fd.batch_hessian(cubes, 1, (None, 0), hessian=fd.hessian_forward_over_forward)(WEIGHT, ROWS)
    assert_close(got, hessian_by_hand(ROWS))


@pytest.mark.parametrize("recipe", [fd.batch_jacobian, fd.batch_hessian])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_aux_by_rows(recipe, chunk_size):
    _, aux = recipe(lambda x: (x**2, {"sum": x.sum()}), has_aux=True, chunk_size=chunk_size)(ROWS)
    assert_close(aux, {"sum": ROWS.sum(1)})


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize(
    ("in_dims", "args", "text"),
    [
        ((0, 0), (ROWS, ROWS[:4]), "same size"),
        ((0, 0, 0), (ROWS, ROWS), "not compatible"),
        ((0, 2), (ROWS, ROWS), "dimensionality 2"),
        ((0, 0), (ROWS, 1.0), "non-Tensor"),
        ((None, None), (ROWS, ROWS), "at least one"),
    ],
)
def test_where_in_dims_do_not_fit_vmap_says_so(in_dims, args, text, chunk_size):
    with pytest.raises(ValueError, match=text):
        fd.batch_jacobian(torch.mul, 0, in_dims, chunk_size=chunk_size)(*args)


def test_a_function_that_writes_into_its_row_leaves_the_batch():
    rows = ROWS.clone()
    with pytest.raises(RuntimeError, match="in place"):
        fd.batch_jacobian(lambda x: x.mul_(2) ** 2, jacobian=fd.jacobian_forward)(rows)
    assert rows.equal(ROWS)


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_summed_recipes_give_the_derivative_of_each_row(chunk_size):
    options = {"argnums": 1, "chunk_size": chunk_size}
    assert_close(fd.batch_jacobian_summed(batched_cubes, **options)(WEIGHT, ROWS), jacobian_by_hand(ROWS))
    assert_close(fd.batch_hessian_summed(batched_cubes, **options)(WEIGHT, ROWS), hessian_by_hand(ROWS))


def test_summed_recipes_take_trees_and_aux():
    def func(x, t):
        return {"a": x**2 * t[:, None], "b": (t**3,)}, {"x": x.sum(1)}

    times = ROWS[:, 0]
    jacobian, aux = fd.batch_jacobian_summed(func, (0, 1), has_aux=True)(ROWS, times)
    assert_close(aux, {"x": ROWS.sum(1)})
    assert_close(jacobian["a"], (torch.diag_embed(2 * ROWS * times[:, None]), ROWS**2))
    assert_close(jacobian["b"][0], (torch.zeros_like(ROWS), 3 * times**2))
    hessian, aux = fd.batch_hessian_summed(func, (0, 1), has_aux=True)(ROWS, times)
    assert_close(aux, {"x": ROWS.sum(1)})
    assert_close(hessian["a"][0][0], torch.diag_embed(torch.diag_embed(2 * times[:, None].expand(5, 3))))
    assert_close(hessian["a"][0][1], torch.diag_embed(2 * ROWS))
    assert_close(hessian["b"][0][1][1], 6 * times)


def test_rows_of_several_axes():
    images = ROWS[:4, :2].reshape(2, 2, 2)
    got = fd.batch_hessian_summed(lambda x: (x**3).sum((1, 2)))(images)
    assert got.shape == (2, 2, 2, 2, 2)
    assert_close(got, vmap(fd.hessian_forward_over_reverse(lambda x: (x**3).sum()))(images))


@pytest.mark.parametrize(("chunk_size", "pushes"), [(None, 1), (1, 3), (2, 2)])
def test_a_summed_hessian_takes_chunk_size_directions_at_once(chunk_size, pushes):
    calls = []

    def counted(rows):
        calls.append(1)
        return batched_cubes(WEIGHT, rows)

    summed.hessian_by_columns(counted, chunk_size=chunk_size)(ROWS)
    assert len(calls) == pushes + 2  # one to check the first derivatives, one to check the second


def second_order_mix(rows):
    return (rows * rows.roll(1, 0)).sum(1)


MIXING = {
    "a mean over the batch": lambda rows: rows - rows.mean(0),
    "batch norm": nn.BatchNorm1d(3, track_running_stats=False).double().requires_grad_(False),
    "attention over the batch": lambda rows: (rows @ rows.T).softmax(1) @ rows,
    "a sum from the first row on": lambda rows: rows.cumsum(0) ** 2,
    "a sum from the last row on": lambda rows: rows.flip(0).cumsum(0) ** 2,
    "attention, of tiny size": lambda rows: 1e-13 * (rows @ rows.T).softmax(1) @ rows,
    "neighbours": lambda rows: rows * rows.roll(1, 0),
    "one row, a little": lambda rows: rows**2 + 1e-9 * torch.eye(5, dtype=rows.dtype)[3][:, None] * rows[1],
}


@pytest.mark.parametrize("recipe", SUMMED)
@pytest.mark.parametrize("name", MIXING)
def test_rows_that_mix_are_refused(recipe, name):
    with pytest.raises(ValueError, match="times the largest derivative"):
        recipe(MIXING[name])(ROWS)
    with pytest.raises(ValueError, match="times the largest derivative"):
        fd.check_batch_independence(MIXING[name], ROWS)


def test_rows_that_mix_in_the_second_derivative_alone_are_refused():
    at_zero = torch.zeros(4, 3, dtype=torch.float64)
    assert_close(fd.batch_jacobian_summed(second_order_mix)(at_zero), at_zero)
    with pytest.raises(ValueError, match="times the largest derivative"):
        fd.batch_hessian_summed(second_order_mix)(at_zero)


@pytest.mark.parametrize("recipe", SUMMED)
def test_inside_a_transform_rows_that_mix_are_refused_or_give_nan(recipe):
    batches = torch.stack([ROWS, 2 * ROWS])
    with pytest.raises(ValueError, match="times the largest derivative"):
        vmap(recipe(MIXING["neighbours"]))(batches)
    assert vmap(recipe(MIXING["neighbours"], verify=False))(batches).isnan().all()
    apart = vmap(recipe(torch.square))(batches)
    assert_close(apart, torch.stack([recipe(torch.square)(rows) for rows in batches]))


def test_on_meta_tensors_shapes_come_through():
    assert fd.batch_jacobian_summed(torch.square)(ROWS.to("meta")).shape == (5, 3, 3)


@pytest.mark.parametrize(
    "func",
    [torch.sin, lambda rows: rows @ WEIGHT.T, nn.LayerNorm(3).double(), lambda rows: rows.softmax(1), torch.zeros_like],
)
def test_rows_apart_leak_nothing_beyond_rounding(func):
    assert fd.check_batch_independence(func, ROWS) < 1e-14


def test_a_leak_is_measured():
    # f_b = x_b + 0.1 x_0: the leak into row 0 is 0.1 sum_b (w_b - w_0), of derivatives of size 1.1 w at most
    with pytest.raises(ValueError, match=r"is 0\.0?\d+ times the largest"):
        fd.check_batch_independence(lambda rows: rows + 0.1 * rows[:1], ROWS)


def test_nan_rows_are_no_leak():
    rows = ROWS.clone()
    rows[2] = float("nan")
    got = fd.batch_jacobian_summed(torch.square)(rows)
    assert got[2].isnan().all()
    assert_close(got[[0, 1, 3, 4]], torch.diag_embed(2 * rows[[0, 1, 3, 4]]))


@pytest.mark.parametrize("func", [lambda rows: rows.sum(), lambda rows: rows.sum(0), lambda rows: rows[:3]])
def test_an_output_without_the_batch_axis_is_refused(func):
    for recipe in (*SUMMED, lambda func: lambda x: fd.check_batch_independence(func, x)):
        with pytest.raises(ValueError, match="the batch as axis 0"):
            recipe(func)(ROWS)


@pytest.mark.parametrize(("chunk_size", "rows"), [(None, [5]), (2, [2])])
@pytest.mark.parametrize("batch", [fd.batch_jacobian, fd.batch_hessian])
def test_a_batch_is_planned_for_its_number_of_rows(batch, chunk_size, rows, monkeypatch):
    planned, make = [], planning.make
    monkeypatch.setattr(planning, "make", lambda *args, **to: planned.append(to["batch"]) or make(*args, **to))
    batch(lambda row: torch.tanh(row) * row, chunk_size=chunk_size)(ROWS)
    assert sorted(set(planned)) == rows
