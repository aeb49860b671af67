"""Recipes inside transforms, gradients through recipes, torch.compile around them, and which graphs results carry."""

import pytest
import torch
from custom_functions import OldCubed
from recipes import DIAGONALS, HESSIANS, JACOBIANS, NOT_COMPILED, PRODUCTS, TRANSFORMS
from torch.func import grad, vmap
from torch.testing import assert_close
from versions import since

import funcdiff as fd
from funcdiff.checks.registry import EXACT

X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
V = torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64)
ROWS = torch.stack([X, -X, 2 * X, X - 1])


def cubes(weight, x):
    return weight * x**3


def cube_sum(x):
    return (x**3).sum()


def on_cubes(entry):
    """The recipe on the sum of w x^3 at x; times w if it takes a vector, of the one row x if it is of a batch."""

    def run(w, x):
        arguments = (x[None],) if entry.kind.startswith("batch") else (x, w) if entry.takes_vector else (x,)
        return entry(lambda x: cubes(w, x).sum(), *arguments)

    return run


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.name)
def test_every_recipe_inside_vmap_and_grad(entry):
    run = on_cubes(entry)
    assert_close(vmap(run, (None, 0))(V, ROWS), torch.stack([run(V, x) for x in ROWS]))
    # sums of 3 w x^2, of 6 w x, and of 6 w^2 x
    slope = 6 * V * X if entry.order == 1 else 6 * V**2 if entry.takes_vector else 6 * V
    if entry.kind == "gram":  # of the square of the first
        slope = 2 * (3 * V * X**2).sum() * slope
    assert_close(grad(lambda x: run(V, x).sum())(X), slope)


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
@pytest.mark.parametrize("recipe", JACOBIANS)
def test_vmap_of_a_jacobian(recipe, chunk_size):
    got = vmap(recipe(cubes, argnums=1, chunk_size=chunk_size), (None, 0))(V, ROWS)
    assert_close(got, torch.diag_embed(3 * V * ROWS**2))


@pytest.mark.parametrize("recipe", JACOBIANS)
def test_vmap_of_a_jacobian_with_aux(recipe):
    got, aux = vmap(recipe(lambda x: (x**3, x.sum()), has_aux=True))(ROWS)
    assert_close(got, torch.diag_embed(3 * ROWS**2))
    assert_close(aux, ROWS.sum(1))


@pytest.mark.parametrize("recipe", HESSIANS)
def test_vmap_of_a_hessian(recipe):
    assert_close(vmap(recipe(cube_sum))(ROWS), torch.diag_embed(6 * ROWS))


@pytest.mark.parametrize("recipe", PRODUCTS)
def test_vmap_of_a_product(recipe):
    assert_close(vmap(lambda x: recipe(cube_sum, (x,), (V,)))(ROWS), 6 * ROWS * V)


def test_vmap_of_an_operator_takes_many_vectors():
    assert_close(vmap(fd.hvp_operator(cube_sum, X))(torch.eye(3, dtype=X.dtype)), torch.diag(6 * X))


@pytest.mark.parametrize("recipe", [*JACOBIANS, fd.batch_jacobian, fd.batch_jacobian_summed])
def test_training_through_a_jacobian(recipe):
    # the trace of the Jacobian is 3 sum(w x^2): its gradient by w is 3 x^2
    point = ROWS if recipe in (fd.batch_jacobian, fd.batch_jacobian_summed) else X
    options = {"in_dims": (None, 0)} if recipe is fd.batch_jacobian else {}
    jacobian = recipe(cubes, argnums=1, **options)
    want = 3 * point**2 if point is X else 3 * (ROWS**2).sum(0)
    assert_close(grad(lambda weight: jacobian(weight, point).sum())(V), want)
    weight = V.clone().requires_grad_()
    jacobian(weight, point).sum().backward()
    assert_close(weight.grad, want)


@pytest.mark.parametrize("recipe", JACOBIANS)
def test_training_through_a_jacobian_reaches_captured_weights_and_the_point(recipe):
    weight, x = V.clone().requires_grad_(), X.clone().requires_grad_()
    recipe(lambda x: cubes(weight, x))(x).sum().backward()
    assert_close(weight.grad, 3 * X**2)
    assert_close(x.grad, 6 * V * X)
    recipe(lambda x: cubes(2 * weight, x))(X).sum().backward()
    assert_close(weight.grad, 9 * X**2)


@pytest.mark.parametrize("recipe", [*HESSIANS, *DIAGONALS])
def test_training_through_a_hessian(recipe):
    weight = V.clone().requires_grad_()
    recipe(lambda x: cubes(weight, x).sum())(X).sum().backward()
    assert_close(weight.grad, 6 * X)


@pytest.mark.parametrize("recipe", PRODUCTS)
def test_training_through_a_product(recipe):
    weight, x = V.clone().requires_grad_(), X.clone().requires_grad_()
    recipe(lambda x: cubes(weight, x).sum(), (x,), (V,)).sum().backward()
    assert_close(weight.grad, 6 * X * V)
    assert_close(x.grad, 6 * V * V)
    assert_close(grad(lambda x: recipe(cube_sum, (x,), (V,)).sum())(X), 6 * V)


@pytest.mark.parametrize("recipe", TRANSFORMS)
def test_a_result_has_a_graph_only_where_a_tensor_of_the_caller_requires_grad(recipe):
    x = X.clone().requires_grad_()
    shared = X * 2
    for func in (cube_sum, lambda x: (shared * x + shared * x.sin()).sum()):
        assert not recipe(func)(X).requires_grad
        assert recipe(func)(x).requires_grad
        with torch.no_grad():
            assert not recipe(func)(x).requires_grad
    assert x.grad is None
    assert not X.requires_grad


@pytest.mark.parametrize("recipe", PRODUCTS)
def test_a_product_has_a_graph_only_where_a_tensor_of_the_caller_requires_grad(recipe):
    x = X.clone().requires_grad_()
    assert not recipe(cube_sum, (X,), (V,)).requires_grad
    assert recipe(cube_sum, (x,), (V,)).requires_grad
    with torch.no_grad():
        got = recipe(cube_sum, (x,), (V,))
    assert not got.requires_grad
    assert_close(got, 6 * X * V)


@pytest.mark.parametrize("recipe", JACOBIANS)
def test_aux_has_a_graph_only_where_a_tensor_of_the_caller_requires_grad(recipe):
    func = lambda x: (x**3, x**2)  # noqa: E731  # shorter than its test
    assert not recipe(func, has_aux=True)(X)[1].requires_grad
    assert recipe(func, has_aux=True)(X.clone().requires_grad_())[1].requires_grad


@pytest.mark.parametrize("recipe", [*JACOBIANS, *HESSIANS])
def test_inference_mode_and_inference_tensors(recipe):
    with torch.inference_mode():
        x = X.clone()
        inside = recipe(cube_sum)(x).clone()
    assert_close(recipe(cube_sum)(x), recipe(cube_sum)(X))
    assert_close(inside, recipe(cube_sum)(X))


@pytest.mark.parametrize("recipe", PRODUCTS)
def test_products_in_inference_mode(recipe):
    with torch.inference_mode():
        assert_close(recipe(cube_sum, (X.clone(),), (V.clone(),)), 6 * X * V)


@pytest.mark.parametrize("recipe", [*JACOBIANS, *HESSIANS])
def test_nan_propagates(recipe):
    x = torch.tensor([1.0, float("nan")], dtype=torch.float64)
    got = recipe(lambda x: x**3)(x)
    assert got[..., 1, 1].isnan().all() if got.dim() == 2 else got[1, 1, 1].isnan()
    assert got.reshape(2, -1)[0, 0] == (3 if got.dim() == 2 else 6)


@pytest.mark.parametrize("recipe", [fd.jacobian_loop, fd.jacobian_batched_grad])
def test_plain_autograd_takes_old_custom_functions_and_checkpoints(recipe):
    assert_close(recipe(OldCubed.apply)(X), torch.diag(3 * X**2))
    checkpointed = lambda x: torch.utils.checkpoint.checkpoint(lambda x: x**3, x, use_reentrant=False)  # noqa: E731  # shorter than a def
    assert_close(recipe(checkpointed)(X), torch.diag(3 * X**2))
    assert_close(fd.hvp_double_backward(lambda x: OldCubed.apply(x).sum(), (X,), (V,)), 6 * X * V)


def test_calling_a_transform_leaves_its_arguments_and_keeps_the_name():
    x = X.clone()
    recipe = fd.jacobian_forward(cubes, argnums=1)
    recipe(V, x)
    assert recipe.__name__ == "cubes"
    assert x.equal(X)
    assert x.grad is None


def rows_of(w, x):
    return torch.stack([x, w, x])


WITH_OPTIONS = {
    "jacobian_loop, argnums": lambda w, x: fd.jacobian_loop(cubes, 1)(w, x),
    "jacobian_reverse, chunks": lambda w, x: fd.jacobian_reverse(cubes, (0, 1), chunk_size=2)(w, x),
    "jacobian_forward, chunks": lambda w, x: fd.jacobian_forward(cubes, 1, chunk_size=2)(w, x),
    "batch_jacobian, chunks": lambda w, x: fd.batch_jacobian(cubes, 1, (None, 0), chunk_size=2)(w, rows_of(w, x)),
    "batch_hessian, nothing captured": lambda w, x: fd.batch_hessian(torch.tanh)(rows_of(w, x)),
    "batch_jacobian_summed, rows": lambda w, x: fd.batch_jacobian_summed(lambda rows: w * rows)(rows_of(w, x)),
    "batch_hessian_summed, rows": lambda w, x: fd.batch_hessian_summed(lambda rows: w * rows**3)(rows_of(w, x)),
}
COMPILED = {entry.name: on_cubes(entry) for entry in EXACT if entry.name not in NOT_COMPILED} | WITH_OPTIONS


ITS_OWN_FAULT = pytest.param("batch_hessian, nothing captured", marks=since("2.13", "the compiler fails within itself"))


@pytest.mark.parametrize("name", [ITS_OWN_FAULT if name in ITS_OWN_FAULT.values else name for name in COMPILED])
def test_compiles_as_one_graph(name):
    torch.compiler.reset()
    compiled = torch.compile(COMPILED[name], fullgraph=True, backend="aot_eager")
    assert_close(compiled(V, X), COMPILED[name](V, X))


def test_while_torch_compile_traces_the_checks_are_left_out(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_close(fd.jacobian_loop(cubes, 1)(V, X), torch.diag(3 * V * X**2))
    x = X.clone()
    fd.jacobian_forward(lambda x: x.mul_(2) ** 2)(x)
    assert x.equal(X)


# Dynamo looks at the .grad of the tensor inside the graph of the outer pass.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    "second",
    [
        lambda func, x: fd.hvp_double_backward(func, (x,), (torch.ones_like(x),)),
        lambda func, x: fd.hvp_operator(func, x)(torch.ones_like(x)),
        lambda func, x: fd.hessian_double_backward(func)(x).sum(1),
        lambda func, x: fd.hessian(func)(x).sum(1),
    ],
)
def test_a_compiled_function_is_no_constant(second):
    # The backward pass that torch.compile writes has no derivative; torch's own grad of it raises.
    x = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64)
    slope = 1 - x.tanh() ** 2
    assert_close(second(torch.compile(lambda x: x.tanh().sum(), backend="aot_eager"), x), -2 * x.tanh() * slope)
    torch.compiler.reset()
