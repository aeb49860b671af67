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
    "TypeError": "An argument, a vector or an output is not a dense tensor of real floating-point numbers, or the "
    "vectors have another structure than the arguments.",
    "ValueError": "`loss` does not return a scalar, or a vector has another shape than its argument.",
    "RuntimeError": "As in `hvp` and `jacobian_operator`, for `model` and for `loss`.",
}
_gauss_newton = partial(
    documented,
    model="The model, as a function of what you differentiate with respect to. `module_function` makes a network a "
    "function of its parameters. Its arguments are tensors, or dicts, lists and tuples of tensors (pytrees).",
    loss="The loss, as a function of the output of the model. It returns a scalar.",
    verify=VERIFY,
    raises=_ERRORS,
)


@_gauss_newton(
    "product",
    returns="Gv, with the shape of the argument. For several arguments, it is a tuple with one product for each, in "
    "which all blocks of the matrix take part.",
    primals="The point at which to differentiate: a tuple with the arguments of `model`, such as `(x,)`.",
    tangents="The vector v: a tuple like `primals`, with tensors of the same shapes, dtypes and devices.",
)
def gauss_newton_product(
    model: Function, loss: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...], *, verify: bool = True
) -> Tree:
    """Compute Gv, the product of the Gauss-Newton matrix of a model and a loss with a vector.

    The Gauss-Newton matrix approximates the Hessian of ``loss(model(x))``, without second derivatives of the model. The
    result Gv has the shape of `x`, and the matrix itself is not computed. It is G = J^T B J. J is the Jacobian of the
    model, and B contains the second derivatives of the loss with respect to the output of the model.

    If the loss is convex, as squares and cross entropy are, G has no negative eigenvalues. G equals the Hessian if the
    model is linear, or if the gradient of the loss is zero.

    Example:
        For half the sum of squares, B is the identity and G is J^T J. Here J is [[3, 2], [0, 1]].

        >>> import torch
        >>> from funcdiff import gauss_newton_product
        >>> def model(x):
        ...     return torch.stack([x[0] * x[1], x[1]])
        >>> def loss(y):
        ...     return y.square().sum() / 2
        >>> gauss_newton_product(model, loss, (torch.tensor([2.0, 3.0]),), (torch.tensor([1.0, 0.0]),))
        tensor([9., 6.])

    Cost:
        As much arithmetic as 6 evaluations of `model` for its parameters, fewer for its input, and the graph of one
        pass in memory.

    Source:
        Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent" (2002).

    See Also:
        `gauss_newton_operator` for many vectors, `fisher_operator`, and `hvp` for the Hessian.
    """
    check_tuple(primals)
    if not torch.compiler.is_compiling():  # before the model runs
        space = Space.of(primals)
        check_tangents(tangents, space.like, space.spec)

    product = product_through(_curvature(loss, verify), model, primals, tangents, verify=verify)
    return whole(product, flatten(primals)[1])


@_gauss_newton(
    "operator",
    returns="The operator. Call it with one vector for each argument of `model`; it returns Gv as "
    "`gauss_newton_product` does.",
    primals=POINT,
)
def gauss_newton_operator(model: Function, loss: Function, *primals: Tree, verify: bool = True) -> Operator:
    """Make an operator that multiplies vectors by the Gauss-Newton matrix of a model and a loss.

    Use it for many vectors at one point, because the model runs only once. ``operator(v)`` is Gv, with the shape of the
    argument. ``operator @ V`` multiplies a flat vector of shape (n,), or the k columns of a matrix of shape (n, k).

    The Gauss-Newton matrix is G = J^T B J. J is the Jacobian of the model, and B contains the second derivatives of the
    loss with respect to the output of the model.

    Example:
        If the model is linear, G is the Hessian of the loss. For the cross entropy at p = (1/2, 1/2), it is diag(p) - p
        p^T.

        >>> import torch
        >>> from funcdiff import gauss_newton_operator
        >>> def model(x):
        ...     return 1.0 * x
        >>> def loss(logits):
        ...     return torch.nn.functional.cross_entropy(logits, torch.tensor(0))
        >>> gauss_newton_operator(model, loss, torch.zeros(2)) @ torch.eye(2)
        tensor([[ 0.2500, -0.2500],
                [-0.2500,  0.2500]])

        For a network, the model is a function of its parameters. This linear layer has 3 of them.

        >>> from funcdiff import module_function
        >>> network, parameters = module_function(torch.nn.Linear(2, 1))
        >>> x, target = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1)
        >>> operator = gauss_newton_operator(
        ...     lambda p: network(p, x), lambda y: torch.nn.functional.mse_loss(y, target), parameters
        ... )
        >>> operator @ torch.eye(3)
        tensor([[2., 4., 2.],
                [4., 8., 4.],
                [2., 4., 2.]])

    Cost:
        As much arithmetic as 3 evaluations of `model` once, and 4 more for each product. The graph of two passes stays
        in memory as long as the operator.

    See Also:
        `Operator` for what an operator can do, and `over_batches` for a loss over a data set.
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
    returns="The operator. Call it with one vector for each argument of `model`; it returns the product with the "
    "Fisher matrix.",
    model=FUNC.replace("The function to differentiate.", "The model, as a function of its parameters."),
    primals=POINT,
    likelihood='The distribution of the data, given the output y of the model. "gaussian" has the mean y and the '
    'variance 1. "categorical" has the logits y along the last axis. For a Gaussian with another standard '
    "deviation, divide the output by it in `model`.",
    samples="The number of labels to draw for each row of the output, for an estimate. By default, the expectation "
    "over labels is exact.",
    generator="The random generator for the labels. By default, the global one of torch.",
    verify=VERIFY,
    raises={
        "TypeError": "An argument or the output is not a dense tensor of real floating-point numbers, or labels are "
        "drawn or categorical and the output is not a single tensor.",
        "ValueError": '`likelihood` is not "gaussian" or "categorical", or `samples` is not positive.',
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
    """Make an operator that multiplies vectors by the Fisher information matrix of the parameters of a model.

    The Fisher matrix F says how strongly the predicted probabilities depend on the parameters. ``operator(v)`` is Fv,
    with the shape of the argument, and ``operator @ v`` takes a flat vector of shape (n,), for n parameters.

    F is equal to the Gauss-Newton matrix of half the sum of squares ("gaussian"), or of the cross entropy with
    ``reduction="sum"`` ("categorical"). It is a sum over the rows of the batch. For a mean, divide the operator by the
    number of rows.

    Example:
        Three observations of a mean, each with the variance 1, have the information 3.

        >>> import torch
        >>> from funcdiff import fisher_operator
        >>> fisher_operator(lambda mean: mean.expand(3), torch.tensor(0.5))(torch.tensor(1.0))
        tensor(3.)

        For a classifier with 4 classes and 3 inputs, the matrix has one row for each of the 16 parameters.

        >>> from funcdiff import module_function
        >>> network, parameters = module_function(torch.nn.Linear(3, 4))
        >>> rows = torch.randn(10, 3)
        >>> operator = fisher_operator(lambda p: network(p, rows), parameters, likelihood="categorical")
        >>> operator.shape
        (16, 16)

    Method:
        F = J^T M J. J is the Jacobian of the model, and M is the covariance of the gradient of the log-likelihood with
        respect to the output of the model. For a Gaussian likelihood, M is the identity. For a categorical one with
        probabilities p, it is diag(p) - p p^T.

        By default, the average over all labels is exact. With `samples`, labels are drawn from the model, and M is
        estimated from the gradients at them. Labels of the data are never used: they would give the "empirical Fisher",
        a different matrix.

    Cost:
        As much arithmetic as 3 evaluations of `model` once, and 4 more for each product, also with `samples`.

    Source:
        J. Martens, "New insights and perspectives on the natural gradient method" (2020). Kunstner, Balles and Hennig,
        "Limitations of the empirical Fisher approximation" (2019).
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
