"""Chunks and random operations."""

from functools import partial

import pytest
import torch
from custom_functions import Identity
from torch.testing import assert_close

import funcdiff as fd

WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.5, -1.0]], dtype=torch.float64)
X = torch.tensor([0.1, -0.7, 1.2], dtype=torch.float64)
ROWS = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
FORWARD = [fd.jacobian_forward, fd.hessian_forward_over_forward, fd.hessian_forward_over_reverse]


def tanh_layer(x):
    return torch.tanh(WEIGHT @ x)


WEIGHT_SLOPE = (1 - tanh_layer(X) ** 2)[:, None] * WEIGHT


def noisy(x):
    return x**2 * torch.rand_like(x)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5, 6, 100])
@pytest.mark.parametrize(
    "recipe", [fd.batch_jacobian, fd.batch_hessian, fd.jacobian_forward, fd.jacobian_reverse, fd.jacobian_batched_grad]
)
def test_chunks_change_nothing(recipe, chunk_size):
    point = ROWS if recipe in (fd.batch_jacobian, fd.batch_hessian) else X
    assert_close(recipe(tanh_layer, chunk_size=chunk_size)(point), recipe(tanh_layer)(point), rtol=1e-12, atol=1e-14)


def spied(sizes):
    """The identity, which notes for how many directions at once it is differentiated."""

    class Slope(torch.autograd.Function):
        @staticmethod
        def forward(u):
            sizes.append(1)
            return u.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def vmap(info, in_dims, u):
            sizes.append(info.batch_size)
            return u.clone(), in_dims[0]

    class Spied(Identity):
        @staticmethod
        def backward(ctx, u):
            return Slope.apply(u)

        @staticmethod
        def jvp(ctx, t):
            return Slope.apply(t)

        @staticmethod
        def vmap(info, in_dims, x):
            return Spied.apply(x), in_dims[0]

    return Spied.apply


@pytest.mark.parametrize(
    ("recipe", "directions"), [(fd.jacobian_forward, 3), (fd.jacobian_reverse, 2), (fd.jacobian_batched_grad, 2)]
)
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_no_more_than_chunk_size_directions_at_once(recipe, directions, chunk_size):
    sizes = []
    identity = spied(sizes)
    assert_close(recipe(lambda x: tanh_layer(identity(x)), chunk_size=chunk_size)(X), recipe(tanh_layer)(X))
    assert max(sizes) == chunk_size
    assert sum(sizes) == directions


@pytest.mark.parametrize(("chunk_size", "largest"), [(None, 3), (2, 2), (1, 1)])
def test_a_summed_jacobian_takes_chunk_size_rows_at_once(chunk_size, largest):
    sizes = []
    identity = spied(sizes)
    transform = fd.batch_jacobian_summed(lambda rows: identity(rows).sin(), chunk_size=chunk_size)
    transform(ROWS)  # is checked, on two rows at once
    sizes.clear()
    transform(ROWS)
    assert max(sizes) == largest


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_a_loop_takes_one_row_at_a_time(chunk_size):
    sizes = []
    identity = spied(sizes)
    assert_close(fd.jacobian_loop(lambda x: tanh_layer(identity(x)), chunk_size=chunk_size)(X), WEIGHT_SLOPE)
    assert sizes == [1, 1]


@pytest.mark.parametrize(
    ("recipe", "point", "calls"),
    [
        (fd.jacobian_taylor, X, 2),
        (partial(fd.batch_jacobian, jacobian=fd.jacobian_reverse), ROWS, 3),
        (partial(fd.batch_hessian, hessian=fd.hessian_forward_over_reverse), ROWS, 3),
    ],
)
def test_each_chunk_calls_the_function_once(recipe, point, calls):
    seen = []

    def counted(x):
        seen.append(1)
        return tanh_layer(x)

    recipe(counted)(point)
    assert len(seen) == 1
    recipe(counted, chunk_size=2)(point)
    assert len(seen) == 1 + calls


@pytest.mark.parametrize("recipe", FORWARD)
def test_random_operations_are_refused_unless_asked_for(recipe):
    with pytest.raises(RuntimeError, match='randomness="same"'):
        recipe(noisy)(X)
    assert recipe(noisy, randomness="different")(X).shape[0] == 3


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_same_randomness_is_one_draw_for_all_columns_in_all_chunks(chunk_size):
    recipe = fd.jacobian_forward(noisy, randomness="same", chunk_size=chunk_size)
    torch.manual_seed(3)
    got = recipe(X)
    torch.manual_seed(3)
    draw = torch.rand_like(X)
    assert_close(got, torch.diag(2 * X * draw))
    following = torch.rand(1)
    torch.manual_seed(3)
    torch.rand_like(X)
    assert torch.rand(1).equal(following)


def test_different_randomness_mixes_draws_across_columns():
    torch.manual_seed(0)
    slope = fd.jacobian_forward(lambda x: x[0] * torch.rand(1, dtype=x.dtype) + 0 * x, randomness="different")(X)
    assert slope[:, 0].unique().numel() == 1
    batch = fd.batch_jacobian(noisy, randomness="different")(ROWS)
    draws = batch.diagonal(dim1=1, dim2=2) / (2 * ROWS)
    assert (draws[0] != draws[1]).all()


def test_same_randomness_is_one_draw_for_all_rows():
    batch = fd.batch_jacobian(noisy, randomness="same", chunk_size=2)(ROWS)
    draws = (batch.diagonal(dim1=1, dim2=2) / (2 * ROWS))[[0, 1, 4]]
    assert_close(draws, draws[:1].expand(3, 3))


def test_reverse_mode_runs_a_random_function_once():
    torch.manual_seed(0)
    got = fd.jacobian_reverse(noisy)(X)
    torch.manual_seed(0)
    assert_close(got, torch.diag(2 * X * torch.rand_like(X)))


@pytest.mark.parametrize("recipe", [fd.jacobian_loop, fd.jacobian_reverse, fd.hessian_reverse_over_reverse])
def test_a_loop_needs_no_vmap(recipe):
    def func(x):
        return x**2 if x.sum() > 0 else -(x**2)

    got = recipe(func, chunk_size=1)(X)
    want = recipe(lambda x: x**2)(X)
    assert_close(got, want)


def test_results_for_functions_of_nothing_and_to_nothing():
    for recipe in (fd.jacobian_loop, fd.jacobian_batched_grad, fd.jacobian_reverse, fd.jacobian_forward):
        for chunk_size in (None, 1, 2):
            assert recipe(lambda x: x[:0], chunk_size=chunk_size)(X).shape == (0, 3)
            assert recipe(lambda x: WEIGHT[:, :0] @ x, chunk_size=chunk_size)(X[:0]).shape == (2, 0)
            assert recipe(torch.sin, chunk_size=chunk_size)(ROWS[:0]).shape == (0, 3, 0, 3)


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_empty_batches(chunk_size):
    assert fd.batch_jacobian(tanh_layer, chunk_size=chunk_size)(ROWS[:0]).shape == (0, 2, 3)
    assert fd.batch_hessian(tanh_layer, chunk_size=chunk_size)(ROWS[:0]).shape == (0, 2, 3, 3)

    def batched(rows):
        return torch.tanh(rows @ WEIGHT.T)

    assert fd.batch_jacobian_summed(batched, chunk_size=chunk_size)(ROWS[:0]).shape == (0, 2, 3)
    assert fd.batch_hessian_summed(batched, chunk_size=chunk_size)(ROWS[:0]).shape == (0, 2, 3, 3)
