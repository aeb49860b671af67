"""Several arguments, dictionaries in and out: f(p, x) = {"y": W x^2, "s": (c . x,)} with its blocks by hand."""

import pytest
import torch
from recipes import DIAGONALS, HESSIANS, JACOBIANS, PRODUCTS, TRANSFORMS
from torch.testing import assert_close

import funcdiff as fd

P = {
    "W": torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]], dtype=torch.float64),
    "c": torch.tensor([2.0, -3.0], dtype=torch.float64),
}
X = torch.tensor([0.5, -2.0], dtype=torch.float64)
EYE2, EYE3 = torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64)


def func(p, x):
    return {"y": p["W"] @ x**2, "s": (p["c"] @ x,)}


def first(p, x):
    by_p = {
        "y": {"W": torch.einsum("ij,k->ijk", EYE3, x**2), "c": zeros(3, 2)},
        "s": ({"W": zeros(3, 2), "c": x},),
    }
    by_x = {"y": 2 * p["W"] * x, "s": (p["c"],)}
    return by_p, by_x


def second_by_x_and_p(p, x):
    return {
        "y": {"W": torch.einsum("ij,kl,l->ikjl", EYE3, EYE2, 2 * x), "c": zeros(3, 2, 2)},
        "s": ({"W": zeros(2, 3, 2), "c": EYE2},),
    }


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
@pytest.mark.parametrize("recipe", JACOBIANS)
def test_jacobian_nests_the_output_outermost(recipe, chunk_size):
    by_p, by_x = first(P, X)
    assert_close(recipe(func, chunk_size=chunk_size)(P, X), by_p)
    assert_close(recipe(func, argnums=1, chunk_size=chunk_size)(P, X), by_x)
    assert_close(recipe(func, argnums=-1)(P, X), by_x)
    both = recipe(func, argnums=(-1, 0), chunk_size=chunk_size)(P, X)
    assert_close(both, {"y": (by_x["y"], by_p["y"]), "s": ((by_x["s"][0], by_p["s"][0]),)})


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
@pytest.mark.parametrize("recipe", HESSIANS)
def test_hessian_nests_the_output_then_the_input_twice(recipe, chunk_size):
    both = recipe(func, argnums=(1, 0), chunk_size=chunk_size)(P, X)
    mixed = second_by_x_and_p(P, X)
    assert_close(both["y"][0][0], torch.einsum("ij,jk->ijk", 2 * P["W"], EYE2))
    assert_close(both["y"][0][1], mixed["y"])
    assert_close(both["s"][0][0][1], mixed["s"][0])
    assert_close(both["y"][1]["W"][0], mixed["y"]["W"].permute(0, 2, 3, 1))
    assert_close(both["s"][0][1]["c"][1]["W"], zeros(2, 3, 2))


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_hessian_diagonal_has_the_shapes_of_a_jacobian(chunk_size):
    got = fd.hessian_diagonal(func, argnums=(0, 1), chunk_size=chunk_size)(P, X)
    assert_close(got["y"][1], 2 * P["W"])
    assert_close(got["y"][0]["W"], zeros(3, 3, 2))
    assert_close(got["s"][0][1], zeros(2))


@pytest.mark.parametrize("recipe", TRANSFORMS)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_aux_comes_along_as_the_function_returned_it(recipe, chunk_size):
    def with_aux(x):
        return x**3, {"double": 2 * x, "sum": x.sum()}

    result, aux = recipe(with_aux, has_aux=True, chunk_size=chunk_size)(X)
    assert_close(result, recipe(lambda x: x**3)(X))
    assert_close(aux, {"double": 2 * X, "sum": X.sum()})
    assert not aux["double"].requires_grad


@pytest.mark.parametrize("recipe", [*JACOBIANS, *HESSIANS, *DIAGONALS])
def test_aux_of_a_function_of_nothing(recipe):
    result, aux = recipe(lambda x: (x.sum(), x.sum() + 1), has_aux=True)(X[:0])
    assert result.numel() == 0
    assert_close(aux, torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("recipe", JACOBIANS)
def test_dtypes_may_differ_between_leaves(recipe):
    by = recipe(lambda a, b: {"a": 2 * a, "b": 3 * b}, argnums=(0, 1))(X.float(), X)
    assert_close(by["a"], (2 * EYE2, zeros(2, 2)), check_dtype=False)
    assert_close(by["b"], (zeros(2, 2), 3 * EYE2), check_dtype=False)


@pytest.mark.parametrize("recipe", JACOBIANS)
def test_an_argument_that_is_no_tensor_passes_where_it_is_not_differentiated(recipe):
    assert_close(recipe(lambda n, x, s: n * x if s == "on" else x, argnums=1)(3, X, "on"), 3 * EYE2)
    assert_close(recipe(lambda i, x: x[i], argnums=1)(torch.tensor([1]), X), EYE2[1:])


@pytest.mark.parametrize("recipe", JACOBIANS)
def test_outputs_without_a_derivative_get_zeros(recipe):
    constant = torch.ones(3, dtype=torch.float64)
    got = recipe(lambda x: (constant.clone(), x))(X)
    assert_close(got, (zeros(3, 2), EYE2))
    assert_close(recipe(lambda x: constant.clone())(X), zeros(3, 2))


@pytest.mark.parametrize("recipe", PRODUCTS)
def test_products_of_several_primals_take_all_blocks(recipe):
    # f = c . x + sum(W x^2): d/dW = x^2, d/dc = x, d/dx = c + 2 x sum_i W_i
    def scalar(p, x):
        return func(p, x)["y"].sum() + func(p, x)["s"][0]

    v = {"W": torch.ones(3, 2, dtype=torch.float64), "c": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    u = torch.tensor([1.0, -1.0], dtype=torch.float64)
    by_p, by_x = recipe(scalar, (P, X), (v, u))
    assert_close(by_p, {"W": (2 * X * u).expand(3, 2), "c": u})
    assert_close(by_x, v["c"] + 2 * X * v["W"].sum(0) + 2 * P["W"].sum(0) * u)
    alone = recipe(lambda p: scalar(p, X), (P,), (v,))
    assert_close(alone, {"W": zeros(3, 2), "c": zeros(2)})


@pytest.mark.parametrize("recipe", PRODUCTS)
def test_products_with_linear_and_constant_functions_are_zero(recipe):
    assert_close(recipe(lambda x: x.sum(), (X,), (X,)), torch.zeros_like(X))
    assert_close(recipe(lambda x: P["c"].sum(), (X,), (X,)), torch.zeros_like(X))
    assert_close(recipe(lambda x, y: x @ x, (X, X), (X, X)), (2 * X, torch.zeros_like(X)))
