"""Every public recipe, one line each: tests, pages and the examination take their lists of recipes from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._automatic import batches, choice, curvature, gram, laplacians, linear, sparse, summed, taylor
from funcdiff._automatic import products as automatic_products
from funcdiff._safety.modes import Function, Modes
from funcdiff.recipes import hessians, jacobians, products, spectrum, traces

Kind = Literal[
    "jacobian",
    "hessian",
    "diagonal",
    "laplacian",
    "product",
    "operator",
    "batch_jacobian",
    "batch_hessian",
    "sparse_jacobian",
    "sparse_hessian",
    "operator_jacobian",
    "curvature",
    "gram",
    "bilaplacian",
    "estimate",
]


def _transform(recipe: Callable[..., Any], func: Function, x: Tensor) -> Any:
    return recipe(func)(x)


def _product(recipe: Callable[..., Any], func: Function, x: Tensor, v: Tensor) -> Any:
    return recipe(func, (x,), (v,))


def _operator(recipe: Callable[..., Any], func: Function, x: Tensor, v: Tensor) -> Any:
    return recipe(func, x)(v)


def _of_batch(recipe: Callable[..., Any], func: Function, rows: Tensor) -> Any:
    return recipe(vmap(func))(rows)


def _of_sparse(recipe: Callable[..., Any], func: Function, x: Tensor) -> Any:
    """The matrix as a dense tensor, in the shape of the dense derivative."""
    matrix = recipe(func, layout=torch.strided)(x)
    outputs = x.shape if recipe is sparse.hessian_sparse else func(x).shape
    return matrix.reshape((*outputs, *x.shape))


def _columns(recipe: Callable[..., Any], func: Function, x: Tensor) -> Any:
    """The Jacobian, from the products with the axes."""
    operator = recipe(func, x)
    return operator.matmat(_axes(x)).reshape((*operator.outputs.like[0].shape, *x.shape))


def _loss_product(recipe: Callable[..., Any], func: Function, x: Tensor, v: Tensor) -> Any:
    """The product with the Hessian of a loss, where the model returns its argument."""
    return recipe(torch.clone, func, (x,), (v,))


def _loss_operator(recipe: Callable[..., Any], func: Function, x: Tensor, v: Tensor) -> Any:
    return recipe(torch.clone, func, x)(v)


def _fisher(recipe: Callable[..., Any], func: Function, x: Tensor) -> Any:
    """J^T J, from the products with the axes."""
    return recipe(func, x).matmat(_axes(x)).reshape((*x.shape, *x.shape))


def _gram(recipe: Callable[..., Any], func: Function, x: Tensor) -> Any:
    return recipe(func, of="inputs")(x).reshape((*x.shape, *x.shape))


def _quarter(recipe: Callable[..., Any], func: Function, x: Tensor) -> Any:
    """The Laplacian of f: a quarter of the bilaplacian of y^2 f(x) at y = 0."""

    def paraboloid(x: Tensor, y: Tensor) -> Any:
        value = func(x)
        return y**2 * value if isinstance(value, Tensor) else value

    return recipe(paraboloid, (0, 1))(x, x.new_zeros(())) / 4


def _of_hessian(recipe: Callable[..., Any], func: Function, x: Tensor) -> Any:
    return recipe(automatic_products.hvp_operator(func, x)).value


def _of_spectrum(recipe: Callable[..., Any], func: Function, x: Tensor) -> Any:
    return recipe(automatic_products.hvp_operator(func, x)).trace(torch.clone).value


def _axes(x: Tensor) -> Tensor:
    return torch.eye(x.numel(), dtype=x.dtype, device=x.device)


@dataclass(frozen=True)
class Entry:
    """A public recipe, what it computes, and how to call it on one tensor."""

    recipe: Callable[..., Any]
    kind: Kind
    form: Callable[..., Any] = _transform
    automatic: bool = False  # leaves out what is known to be wrong on func, and so depends on the atlas
    random: bool = False  # an estimate, which differs from draw to draw: no page or test may expect the exact result

    @property
    def name(self) -> str:
        """The name to import it by."""
        return self.recipe.__name__

    @property
    def order(self) -> int:
        """The order of the derivative: 1 or 2."""
        return 1 if self.kind.endswith(("jacobian", "gram")) else 2

    @property
    def takes_vector(self) -> bool:
        """Whether it multiplies the Hessian by a vector, of a function that returns a number."""
        return self.kind in ("product", "operator", "curvature")

    @property
    def of_scalars(self) -> bool:
        """Whether it needs a function that returns a number."""
        return self.takes_vector or self.kind in ("sparse_hessian", "estimate")

    @property
    def judged(self) -> bool:
        """Whether the atlas judges it by itself: the others only call recipes that are judged."""
        return not self.random and self.kind in ("jacobian", "hessian", "diagonal", "laplacian", "product", "operator")

    def __call__(self, func: Function, x: Tensor, *v: Tensor) -> Tensor:
        """The derivative of `func` at `x`, times `v` if it takes a vector; for each row of `x` if it is of a batch."""
        result: Tensor = self.form(self.recipe, func, x, *v)
        return result


REGISTRY = (
    Entry(jacobians.jacobian_loop, "jacobian"),
    Entry(jacobians.jacobian_batched_grad, "jacobian"),
    Entry(jacobians.jacobian_reverse, "jacobian"),
    Entry(jacobians.jacobian_forward, "jacobian"),
    Entry(taylor.jacobian_taylor, "jacobian", automatic=True),
    Entry(choice.jacobian, "jacobian", automatic=True),
    Entry(sparse.jacobian_sparse, "sparse_jacobian", _of_sparse, automatic=True),
    Entry(hessians.hessian_forward_over_reverse, "hessian"),
    Entry(hessians.hessian_reverse_over_reverse, "hessian"),
    Entry(hessians.hessian_reverse_over_forward, "hessian"),
    Entry(hessians.hessian_forward_over_forward, "hessian"),
    Entry(hessians.hessian_double_backward, "hessian"),
    Entry(taylor.hessian_taylor, "hessian", automatic=True),
    Entry(choice.hessian, "hessian", automatic=True),
    Entry(sparse.hessian_sparse, "sparse_hessian", _of_sparse, automatic=True),
    Entry(products.hvp_forward_over_reverse, "product", _product),
    Entry(products.hvp_reverse_over_reverse, "product", _product),
    Entry(products.hvp_reverse_over_forward, "product", _product),
    Entry(products.hvp_double_backward, "product", _product),
    Entry(products.vhp, "product", _product),
    Entry(automatic_products.hvp, "product", _product, automatic=True),
    Entry(automatic_products.hvp_operator, "operator", _operator, automatic=True),
    Entry(taylor.hessian_diagonal, "diagonal", automatic=True),
    Entry(laplacians.laplacian, "laplacian", automatic=True),
    Entry(laplacians.bilaplacian, "bilaplacian", _quarter, automatic=True),
    Entry(linear.jacobian_operator, "operator_jacobian", _columns, automatic=True),
    Entry(curvature.gauss_newton_product, "curvature", _loss_product, automatic=True),
    Entry(curvature.gauss_newton_operator, "curvature", _loss_operator, automatic=True),
    Entry(curvature.fisher_operator, "gram", _fisher, automatic=True),
    Entry(gram.gram_matrix, "gram", _gram, automatic=True),
    Entry(traces.trace_estimate, "estimate", _of_hessian, random=True),
    Entry(traces.diagonal_estimate, "estimate", _of_hessian, random=True),
    Entry(spectrum.spectral_density, "estimate", _of_spectrum, random=True),
    Entry(batches.batch_jacobian, "batch_jacobian"),
    Entry(batches.batch_hessian, "batch_hessian"),
    Entry(summed.batch_jacobian_summed, "batch_jacobian", _of_batch),
    Entry(summed.batch_hessian_summed, "batch_hessian", _of_batch),
)
EXACT = tuple(entry for entry in REGISTRY if not entry.random)


def _exact(*kinds: Kind) -> dict[str, Any]:
    return {entry.name: entry for entry in EXACT if entry.kind in kinds}


RECIPES = Modes(  # what an examination judges
    jacobians=_exact("jacobian"),
    hessians=_exact("hessian"),
    products=_exact("product", "operator"),
    diagonals=_exact("diagonal"),
    laplacians=_exact("laplacian"),
)
