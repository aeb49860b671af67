"""The Laplacian and its square: sums of second and of fourth derivatives, and never a Hessian."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._automatic.choice import VERIFY, chosen
from funcdiff._automatic.directed import directed, on_directions
from funcdiff._automatic.taylor import ERRORS, ONE_DRAW, one_draw
from funcdiff._calling.arguments import differentiated
from funcdiff._calling.documented import documented
from funcdiff._calling.draws import check_samples, random_vectors
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff._torch.compiler import named_after
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.trees import Tree, map_leaves

_laplacian = partial(
    documented,
    argnums="The position of the argument over whose entries the sum goes, or a tuple of positions.",
    chunk_size="The number of first derivatives to compute at once, by default all.",
    generator="The source of the random directions, by default that of torch.",
    verify=VERIFY,
    randomness=ONE_DRAW,
)


@_laplacian(
    "Laplacian",
    weights="A matrix W of shape (n, n). The result is then the sum of W_ij times the second derivative along i and j, "
    "over the n entries of the arguments.",
    factor="A factor L of shape (n, r) of the weights W = L L^T: the sum goes over its r columns.",
    samples="The number of random directions, instead of all n: an estimate, right on average. Inside vmap, all rows "
    "share the directions.",
    raises={
        **ERRORS,
        "ValueError": ERRORS["ValueError"].replace(
            "or `randomness`",
            "or `samples` is, or the shape of `weights` or `factor` is wrong, or both are given, or `randomness`",
        ),
    },
)
def laplacian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    weights: Tensor | None = None,
    factor: Tensor | None = None,
    samples: int | None = None,
    generator: torch.Generator | None = None,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    verify: bool = True,
) -> Function:
    """Compute the Laplacian: the sum of the second derivatives with respect to each input.

    The function runs once, and each number carries its n first derivatives and the sum of its second derivatives along
    (collapsed Taylor mode). The Hessian is never computed. To train through a Laplacian, differentiate the result.

    If an operation has no Taylor rule, torch's own modes compute the diagonal of the Hessian, which is then summed.

    With `weights` or their `factor`, this is the second-order term of a diffusion equation. For weights that depend on
    the point, make the Laplacian there: ``laplacian(func, factor=sigma(x))(x)``. A factor costs less than a matrix
    inside vmap, and if you train it. With `samples`, the estimate is Hutchinson's, from directions of random signs.

    Source: Dangel, Siebert, Zeinhofer and Walther, Collapsing Taylor Mode Automatic Differentiation (2025),
    arXiv:2505.13644.

    Shapes: Those of the output.

    Cost: (2 + n) F for any number of outputs; (2 + r) F for r columns or samples. A matrix with positive and negative
    eigenvalues needs a run for each sign.

    Example:
        The Laplacian of (x^2 + y^2) x is 8 x. With the weights of the mixed derivative alone, it is 2 y.

        >>> import torch
        >>> def func(x):
        ...     return x.square().sum() * x[0]
        >>> laplacian(func)(torch.tensor([3.0, 5.0]))
        tensor(24.)
        >>> weights = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> laplacian(func, weights=weights)(torch.tensor([3.0, 5.0])).round()
        tensor(10.)
    """
    options = one_draw(Options(argnums, has_aux, chunk_size, randomness))
    plain = partial(chosen, "laplacian", verify=verify)
    if weights is None and factor is None and samples is None:
        return plain(func, options)
    return directed(plain, func, options, weights, factor, samples, generator)


@_laplacian(
    "Bilaplacian",
    samples="The number of random directions: an estimate, right on average. Inside vmap, all rows share the "
    "directions.",
    raises=ERRORS,
)
def bilaplacian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    samples: int | None = None,
    generator: torch.Generator | None = None,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    verify: bool = True,
) -> Function:
    """Compute the Laplacian of the Laplacian, the sum of the fourth derivatives along i, i, j and j.

    The inner Laplacian is that of collapsed Taylor mode. Two backward passes through it give the outer one. With
    `samples`, the estimate is a third of the mean of the fourth derivatives along normally distributed directions.

    Source: Dangel, Siebert, Zeinhofer and Walther, Collapsing Taylor Mode Automatic Differentiation (2025),
    arXiv:2505.13644; for the estimate, Hu, Shi, Karniadakis and Kawaguchi (2024), arXiv:2312.14499.

    Shapes: Those of the output.

    Cost: About 4 n (2 + n) F for each output; 12 F for each sample and output.

    Example:
        The bilaplacian of x^4 + x^2 y^2 is 24 + 8.

        >>> import torch
        >>> bilaplacian(lambda x: x[0] ** 4 + x[0] ** 2 * x[1] ** 2)(torch.tensor([3.0, 5.0]))
        tensor(32.)
    """
    options = one_draw(Options(argnums, has_aux, chunk_size, randomness))
    check_samples(samples)
    if samples is None:
        return _twice(func, options, verify)
    steps = Options(0, has_aux, chunk_size, randomness)
    by_step = _twice(on_directions(func, options), steps, verify)

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        leaves = differentiated(args, argnums, kwargs)
        n, like = sum(leaf.numel() for leaf in leaves), leaves[0]
        directions = random_vectors(n, samples, like, generator, normal=True)
        fourths = vmap(lambda v: by_step(like.new_zeros(1), v[:, None], *args), 1, randomness=randomness)(directions)
        if has_aux:
            return map_leaves(lambda y: y.mean(0) / 3, fourths[0]), map_leaves(lambda y: y[0], fourths[1])
        return map_leaves(lambda y: y.mean(0) / 3, fourths)

    return wrapper


# Two backward passes are several times faster here than forward over reverse.
_OUTER = (
    "hessian_double_backward, trace",
    "hessian_forward_over_reverse, trace",
    "hessian_double_backward, one entry at a time",
)


def _twice(func: Function, options: Options, verify: bool) -> Function:
    """The Laplacian of the Laplacian."""
    inner = chosen("laplacian", func, options, verify=verify)
    outer = Options(options.argnums, options.has_aux, None, options.randomness)
    twice = chosen("laplacian", inner, outer, names=_OUTER, verify=verify)

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        if torch.compiler.is_compiling():
            raise RefusedError("torch 2.13 ends the process when it runs a compiled bilaplacian: call it uncompiled")
        return twice(*args, **kwargs)

    return wrapper
