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
    argnums="Which argument to differentiate with respect to: its position, or a tuple of positions. The sum goes "
    "over all entries of these arguments.",
    chunk_size="How many first derivatives to compute at once. By default, all of them.",
    generator="The random generator for the directions. By default, the global one of torch.",
    verify=VERIFY,
    randomness=ONE_DRAW,
)


@_laplacian(
    "Laplacian",
    weights="A matrix W of shape (n, n), for n inputs. The result is then the sum over i and j of W_ij times the "
    "second derivative along inputs i and j.",
    factor="A matrix L of shape (n, r), instead of `weights`. The weights are then W = L L^T.",
    samples="The number of random directions for an estimate, which is right on average. By default, the result is "
    "exact. Inside vmap, all rows use the same directions.",
    raises={
        **ERRORS,
        "ValueError": ERRORS["ValueError"].replace(
            "or `randomness`",
            "or `samples` has, or `weights` or `factor` has the wrong shape, or both are given, or `randomness`",
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

    The result has the shape of the output. If `func(x)` is a scalar, it is the trace of the Hessian, and the Hessian
    itself is not computed.

    Example:
        The Laplacian of (x^2 + y^2) x is 8 x.

        >>> import torch
        >>> from funcdiff import laplacian
        >>> def func(x):
        ...     return x.square().sum() * x[0]
        >>> laplacian(func)(torch.tensor([3.0, 5.0]))
        tensor(24.)

        The same in plain torch, which computes the whole Hessian:

        >>> torch.func.hessian(func)(torch.tensor([3.0, 5.0])).trace()
        tensor(24.)

        For each row of a batch, use vmap.

        >>> torch.func.vmap(laplacian(func))(torch.tensor([[3.0, 5.0], [1.0, 0.0]]))
        tensor([24.,  8.])

        With `weights`, the result is a weighted sum. Here it is the mixed derivative 2 y alone.

        >>> weights = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> laplacian(func, weights=weights)(torch.tensor([3.0, 5.0])).round()
        tensor(10.)

    Method:
        `func` runs once. Each number in it carries its n first derivatives and the sum of its second derivatives
        (collapsed Taylor mode). If an operation has no rule for this, torch's own modes compute the diagonal of the
        Hessian, which is then summed. To train through a Laplacian, backpropagate through the result.

        A weighted sum is the second-order term of a diffusion equation. If the weights depend on the point, write
        ``laplacian(func, factor=sigma(x))(x)``. A factor needs less time than a matrix inside vmap, and if you train
        it. With `samples`, the result is Hutchinson's estimate, from directions of random signs.

    Cost:
        2 + n evaluations of `func` for n inputs and any number of outputs, or 2 + r for r columns of a factor or r
        samples. Weights with eigenvalues of both signs need one run for each sign.

    Source:
        Dangel, Siebert, Zeinhofer and Walther, Collapsing Taylor Mode Automatic Differentiation (2025),
        arXiv:2505.13644.
    """
    options = one_draw(Options(argnums, has_aux, chunk_size, randomness))
    plain = partial(chosen, "laplacian", verify=verify)
    if weights is None and factor is None and samples is None:
        return plain(func, options)
    return directed(plain, func, options, weights, factor, samples, generator)


@_laplacian(
    "Bilaplacian",
    samples="The number of random directions for an estimate, which is right on average. By default, the result is "
    "exact. Inside vmap, all rows use the same directions.",
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
    """Compute the bilaplacian: the Laplacian of the Laplacian.

    The result has the shape of the output. It is the sum of the fourth derivatives over all pairs of inputs i and j:
    twice with respect to i, and twice with respect to j.

    Example:
        The bilaplacian of x^4 + x^2 y^2 is 24 + 8.

        >>> import torch
        >>> from funcdiff import bilaplacian
        >>> bilaplacian(lambda x: x[0] ** 4 + x[0] ** 2 * x[1] ** 2)(torch.tensor([3.0, 5.0]))
        tensor(32.)

    Method:
        The inner Laplacian is computed as in `laplacian`, and the outer one by two backward passes through it. With
        `samples`, the result is an estimate: a third of the mean of the fourth derivatives along normally distributed
        directions.

    Cost:
        About 2 (1 + n) (2 + n) evaluations of `func` for n inputs and one output, and more for several, or 12 for each
        sample and output.

    Source:
        Dangel, Siebert, Zeinhofer and Walther, Collapsing Taylor Mode Automatic Differentiation (2025),
        arXiv:2505.13644. For the estimate, Hu, Shi, Karniadakis and Kawaguchi (2024), arXiv:2312.14499.
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
