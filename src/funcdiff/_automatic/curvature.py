"""Gauss-Newton and Fisher products: J^T M J v, with the model linearized once."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from funcdiff._automatic.choice import VERIFY
from funcdiff._automatic.linear import FUNC, POINT, linearized, product_through
from funcdiff._automatic.products import hvp_operator
from funcdiff._calling.arguments import kind
from funcdiff._calling.documented import documented
from funcdiff._calling.draws import check_samples, source
from funcdiff._calling.operator import ONCE, Leaves, Map, Maps, Operator, Space, symmetric
from funcdiff._calling.point import check_tangents, check_tuple, whole
from funcdiff._calling.types import Function
from funcdiff._torch.trees import Tree, flatten, unflatten
from funcdiff.recipes.linear import Middle

Likelihood = Literal["gaussian", "categorical"]
_ERRORS = {
    "TypeError": "A primal, a tangent or an output is not a real, dense, floating-point tensor, or the tangents have "
    "another structure than the primals.",
    "ValueError": "`loss` does not return a scalar, or a tangent has another shape than its primal.",
    "RuntimeError": "As in `hvp` and `jacobian_operator`, for `model` and for `loss`.",
}
_gauss_newton = partial(
    documented,
    model="The model as a function of what is differentiated. It takes tensors or pytrees, and returns what `loss` "
    "takes. `module_function` makes a network such a function of its parameters.",
    loss="The loss of the model's output. It takes one argument and returns a scalar.",
    verify=VERIFY,
    raises=_ERRORS,
)


@_gauss_newton(
    "product",
    returns="Gv, with all blocks of the matrix. For several primals, it is a tuple with a product for each.",
    primals="The point: a tuple with the arguments of `model`.",
    tangents="The vector v: a tuple like `primals`, with the same structure, shapes, dtypes and devices.",
)
def gauss_newton_product(
    model: Function, loss: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...], *, verify: bool = True
) -> Tree:
    """Compute Gv, where G = J^T H J has the Jacobian J of the model and the Hessian H of the loss.

    G is the Hessian of ``loss(model(x))`` without the curvature of the model. It is positive semidefinite if the loss
    is convex, and equal to the Hessian if the model is linear or the loss has no slope.

    Source: N. N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent" (2002).

    Cost: 6 F, and the graph of one pass in memory.

    Example:
        For half the sum of squares, G is J^T J.

        >>> import torch
        >>> def model(x):
        ...     return torch.stack([x[0] * x[1], x[1]])
        >>> def loss(y):
        ...     return y.square().sum() / 2
        >>> gauss_newton_product(model, loss, (torch.tensor([2.0, 3.0]),), (torch.tensor([1.0, 0.0]),))
        tensor([9., 6.])
    """
    check_tuple(primals)
    if not torch.compiler.is_compiling():  # before the model runs
        space = Space.of(primals)
        check_tangents(tangents, space.like, space.spec)

    product = product_through(_curvature(loss, verify), model, primals, tangents, verify=verify)
    return whole(product, flatten(primals)[1])


@_gauss_newton(
    "operator",
    returns="The operator. It takes the tangents, one for each primal, and returns Gv.",
    primals=POINT,
)
def gauss_newton_operator(model: Function, loss: Function, *primals: Tree, verify: bool = True) -> Operator:
    """Make the map from v to Gv at one point, where G = J^T H J as in `gauss_newton_product`. The model runs once.

    Shapes: Those of the primals. ``operator @ V`` takes flat vectors.

    Cost: 3 F once, then 4 F for each product. The graph of two passes stays in memory as long as the operator.

    Example:
        A linear model with the cross entropy: G is the Hessian, diag(p) - p p^T at p = (1/2, 1/2).

        >>> import torch
        >>> def loss(logits):
        ...     return torch.nn.functional.cross_entropy(logits, torch.tensor(0))
        >>> gauss_newton_operator(lambda x: x.clone(), loss, torch.zeros(2)) @ torch.eye(2)
        tensor([[ 0.2500, -0.2500],
                [-0.2500,  0.2500]])
    """
    return _operator(_curvature(loss, verify), model, primals, verify)


def _curvature(loss: Function, verify: bool) -> Middle:
    """The product with the Hessian of the loss at an output."""
    return lambda output: hvp_operator(loss, output, verify=verify).maps.apply


def _operator(middle: Middle, model: Function, primals: tuple[Tree, ...], verify: bool) -> Operator:
    """J^T M J: with the model linearized at once, unless the operator is for a single product."""

    def made() -> Operator:
        at = linearized(model, primals, verify=verify)
        output = at.value()
        return at.jacobian.T.after(symmetric(middle(output), Space.of((output,)))).after(at.jacobian)

    if torch.compiler.is_compiling() or not ONCE.get():
        return made()
    space = Space.of(primals)

    def one(v: Leaves) -> Leaves:
        return product_through(middle, model, primals, unflatten(v, space.spec), verify=verify)

    def many(vectors: Leaves) -> Leaves:
        return made().maps.apply_many(vectors)

    return Operator(Maps(one, one, many, many), space, space)


@documented(
    "operator",
    returns="The operator. It takes the tangents, one for each primal, and returns the product with the Fisher matrix.",
    model=FUNC.replace("The function.", "The model as a function of its parameters."),
    primals=POINT,
    likelihood='The distribution of the data given the output y of the model: "gaussian" with mean y and unit '
    'variance, or "categorical" with the logits y along the last axis. For a Gaussian with another standard deviation, '
    "divide the output by it in `model`.",
    samples="The number of labels to draw for each row, the entries along the last axis of the output, instead of "
    "the exact expectation over labels. By default, the matrix is exact.",
    generator="The source of the labels, by default that of torch.",
    verify=VERIFY,
    raises={
        "TypeError": "A primal or an output is not a real, dense, floating-point tensor, or the output is a pytree of "
        "several although labels are drawn or are categories.",
        "ValueError": "`likelihood` is none of the two, or `samples` is not positive.",
        "RuntimeError": "As in `jacobian_operator`.",
    },
)
def fisher_operator(
    model: Function,
    *primals: Tree,
    likelihood: Likelihood = "gaussian",
    samples: int | None = None,
    generator: torch.Generator | None = None,
    verify: bool = True,
) -> Operator:
    """Make the map from v to the product with the Fisher information of the parameters, summed over the rows.

    The Fisher matrix is J^T M J, where M is the covariance of the gradient of the log-likelihood with respect to the
    output: the identity, or diag(p) - p p^T. So it equals the Gauss-Newton matrix of half the sum of squares, or of the
    cross entropy with ``reduction="sum"``. Divide the operator by the number of rows for a mean.

    With `samples`, labels are drawn from the model, and M is the mean of the squared gradients at them. The data's own
    labels, the "empirical Fisher", would give a matrix without this meaning.

    Source: J. Martens, "New insights and perspectives on the natural gradient method" (2020); Kunstner, Balles and
    Hennig, "Limitations of the empirical Fisher approximation" (2019).

    Shapes: Those of the primals. ``operator @ V`` takes flat vectors.

    Cost: 3 F once, then 4 F for each product, also with `samples`.

    Example:
        The information about a mean from three observations is 3.

        >>> import torch
        >>> fisher_operator(lambda mean: mean.expand(3), torch.tensor(0.5))(torch.tensor(1.0))
        tensor(3.)
    """
    if likelihood not in ("gaussian", "categorical"):
        raise ValueError(f'expected likelihood to be "gaussian" or "categorical", got {likelihood!r}')
    check_samples(samples)
    return _operator(_covariance(likelihood, samples, generator), model, primals, verify)


def _covariance(likelihood: Likelihood, samples: int | None, generator: torch.Generator | None) -> Middle:
    """The product with the covariance of the scores at an output: the exact one, or that of drawn scores."""
    drawn: list[Tensor] = []  # at the first output, so that all products are with one matrix

    def middle(tree: Tree) -> Map:
        if likelihood == "gaussian" and samples is None:
            return lambda u: u
        output = _one(tree, likelihood)
        probabilities = output.softmax(-1) if likelihood == "categorical" else torch.zeros_like(output)

        def exact(u: Leaves) -> Leaves:
            weighted = probabilities * u[0]
            return [weighted - probabilities * weighted.sum(-1, keepdim=True)]

        if samples is None:
            return exact
        if not drawn:
            drawn.append(_drawn(output, likelihood, samples, generator))
        scores = drawn[0] - probabilities
        return lambda u: [(scores * (scores * u[0]).sum(-1, keepdim=True)).mean(0)]

    return middle


def _drawn(output: Tensor, likelihood: Likelihood, samples: int, generator: torch.Generator | None) -> Tensor:
    """Labels drawn from the model as rows with a one, or the noise."""
    device = source(generator, output)
    if likelihood == "gaussian":
        noise = torch.randn((samples, *output.shape), generator=generator, dtype=output.dtype, device=device)
        return noise.to(output.device)
    rows = output.detach().softmax(-1).reshape(-1, output.shape[-1]).to(device)
    labels = torch.multinomial(rows, samples, replacement=True, generator=generator).T.to(output.device)
    return torch.nn.functional.one_hot(labels, output.shape[-1]).reshape(samples, *output.shape)


def _one(output: Tree, likelihood: str) -> Tensor:
    """The only tensor in the output."""
    leaves = flatten(output)[0]
    if not isinstance(output, Tensor):
        raise TypeError(
            f"expected model to return one tensor for drawn labels or categories, got {kind(output)} with "
            f"{len(leaves)} of them. Join them with torch.cat in the model."
        )
    if output.dim() == 0 and likelihood == "categorical":
        raise ValueError("expected logits with an axis of categories, the last one, got a scalar")
    return output
