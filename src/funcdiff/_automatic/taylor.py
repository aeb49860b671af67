"""Taylor mode: the function runs once and carries all its derivatives along, first and second."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec

from funcdiff._automatic import fallback
from funcdiff._calling.arguments import (
    aux_apart,
    check_argnums,
    check_chunk_size,
    check_leaves,
    check_range,
    refuse_keywords,
    replace_args,
    select_args,
)
from funcdiff._calling.transform import guarded
from funcdiff._calling.types import Function
from funcdiff._jets.jet import NO_JET, plain
from funcdiff._torch.messages import RefusedError, out_of_memory
from funcdiff._torch.trees import Tree, flatten, unflatten
from funcdiff.recipes import taylor

_log = logging.getLogger("funcdiff.taylor")


def hessian_taylor(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Hessian by symmetric second-order Taylor mode: fast where func has many outputs and few inputs.

    The function runs once, on its value, its n first derivatives and its n(n+1)/2 different second ones.
    Cost: 1 + n + n(n+1)/2 passes of func, however many outputs it has; forward over reverse takes (1 + n)(1 + m), which
    is less for m = 1.

    Where an operation has no Taylor rule (complex numbers, an RNN, a custom autograd function, a transform in func),
    the whole Hessian is taken by torch's own modes, as `hessian` chooses; the logger ``funcdiff.taylor`` says so. Under
    torch.compile, keep custom autograd functions out of func: torch 2.13 then takes the derivative of their
    forward formula instead of the one they define, in `torch.func.hessian` as well.

    Args:
        func: function of tensors, or pytrees of them, returning a tensor or a pytree of tensors.
        argnums: the argument, or arguments, to differentiate with respect to.
        has_aux: whether func returns ``(output, aux)``; the transform then returns ``(hessian, aux)``.
        chunk_size: how many second derivatives to carry at a time, each time with the first ones they need; None for
            all. Fewer take less memory and more time.
        randomness: what func's random draws do: "error", or "same" for one draw that all derivatives share.

    Returns:
        A function of func's own arguments. A tensor `(*in) -> (*out)` gives `(*out, *in, *in)`; with pytrees the
        output's structure is outermost, then the input's, twice.

    Raises:
        TypeError: an argument differentiated, or an output, is not a real floating-point tensor.
        ValueError: ``randomness="different"``, with which there is no Hessian.
        RuntimeError: func does what torch's modes disagree about: no_grad(), .item(), a batch norm in training mode.

    Source: Griewank and Walther, Evaluating Derivatives (2008), chapter 13.

    >>> import torch
    >>> hessian_taylor(lambda x: x[0] ** 2 * x[1])(torch.tensor([3.0, 5.0]))
    tensor([[10.,  6.],
            [ 6.,  0.]])
    """
    options = argnums, has_aux, chunk_size, randomness
    return _transform(func, *options, taylor.hessians, fallback.hessians, depth=2)


def jacobian_taylor(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The Jacobian by first-order Taylor mode: forward mode without what torch multiplies for nothing.

    The function runs once, on its value and its n first derivatives. Shapes: the output's, then the input's. Cost:
    (1 + n) F, where `jacobian_forward`, to which it turns for an operation without a Taylor rule, takes (2 + n) F.

    Arguments, errors: those of `hessian_taylor`; `chunk_size` first derivatives travel at a time.

    >>> import torch
    >>> jacobian_taylor(lambda x: x[:2] * x[2])(torch.tensor([3.0, 5.0, 7.0]))
    tensor([[7., 0., 3.],
            [0., 7., 5.]])
    """
    options = argnums, has_aux, chunk_size, randomness
    return _transform(func, *options, taylor.jacobians, fallback.jacobians, depth=1)


def hessian_diagonal(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """The diagonal of the Hessian: for every output its second derivative by each entry of the input alone.

    The function runs once, on its value, its n first derivatives and its n unmixed second ones. Shapes: the output's,
    then the input's, once: those of a Jacobian. Cost: (1 + 2 n) F, however many outputs func has, and never a Hessian;
    where an operation has no Taylor rule, (1 + n)(1 + m) F by forward over reverse, a column at a time.

    Arguments, errors: those of `hessian_taylor`; `chunk_size` inputs are taken at a time.

    >>> import torch
    >>> hessian_diagonal(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 3.0]))  # 2 y and 0
    tensor([6., 0.])
    """
    options = argnums, has_aux, chunk_size, randomness
    return _transform(func, *options, taylor.diagonals, fallback.diagonals, depth=1)


def laplacian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Sum of the second derivatives along every input, by collapsed Taylor mode: never a Hessian.

    The function runs once, on its value, its n first derivatives and the one sum of its second ones. Cost: 2 + n passes
    of func, however many outputs it has. Where an operation has no Taylor rule, the diagonal is taken by torch's own
    modes and summed, as for `hessian_taylor`. To train through it, differentiate the result.

    Args:
        func: function of tensors, or pytrees of them, returning a tensor or a pytree of tensors.
        argnums: the argument, or arguments, over all of whose entries the sum goes.
        has_aux: whether func returns ``(output, aux)``; the transform then returns ``(laplacian, aux)``.
        chunk_size: how many first derivatives to carry at a time; None for all.
        randomness: what func's random draws do: "error", or "same" for one draw that all derivatives share.

    Returns:
        A function of func's own arguments; its result has the shape, or the structure, of func's output.

    Raises:
        TypeError: an argument differentiated, or an output, is not a real floating-point tensor.
        ValueError: ``randomness="different"``, with which there is no Laplacian.
        RuntimeError: func does what torch's modes disagree about: no_grad(), .item(), a batch norm in training mode.

    Source: Dangel, Siebert, Zeinhofer and Walther, Collapsing Taylor Mode Automatic Differentiation (2025),
    arXiv:2505.13644.

    >>> import torch
    >>> laplacian(lambda x: x.square().sum() * x[0])(torch.tensor([3.0, 5.0]))  # 8 x[0]
    tensor(24.)
    """
    options = argnums, has_aux, chunk_size, randomness
    return _transform(func, *options, taylor.laplacians, fallback.laplacians, depth=0)


def _transform(
    func: Function,
    argnums: int | tuple[int, ...],
    has_aux: bool,
    chunk_size: int | None,
    randomness: str,
    by_jets: Function,
    by_composition: Function,
    *,
    depth: int,
) -> Function:
    """Give the two ways to a result, which see only flat tensors, torch.func's calling convention.

    `depth` counts how often the input's structure stands inside the output's: once in a Jacobian, twice in a Hessian.
    """
    check_argnums(argnums)
    check_chunk_size(chunk_size)
    _check_randomness(randomness)

    @functools.wraps(func, updated=())
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        check_range(argnums, len(args))
        primals, in_spec = flatten(select_args(args, argnums))
        check_leaves(primals, "differentiated argument")

        def run(*copies: Tree) -> Tree:
            out_specs: list[TreeSpec] = []

            def flat(*leaves: Tensor) -> tuple[Sequence[Any], Tree]:
                returned = func(*replace_args(copies, argnums, unflatten(leaves, in_spec)))
                output, aux = aux_apart(returned) if has_aux else (returned, ())
                outputs, out_spec = flatten(output)
                check_leaves([plain(leaf) for leaf in outputs], "output of func")
                out_specs.append(out_spec)
                return outputs, aux

            leaves = flatten(select_args(copies, argnums))[0]
            results, aux = _first_possible(by_jets, by_composition, flat, leaves, chunk_size, randomness)
            result = unflatten([_nested(one, in_spec, depth) for one in results], out_specs[-1])
            return (result, aux) if has_aux else result

        return guarded(run, args)

    return wrapper


def _nested(blocks: Any, spec: TreeSpec, depth: int) -> Tree:
    """Lists in lists of tensors as trees in trees."""
    return unflatten([_nested(block, spec, depth - 1) for block in blocks], spec) if depth else blocks


def _first_possible(by_jets: Function, by_composition: Function, *problem: Any) -> Any:
    """By jets if they pass through func. What stops them is no error yet: of that, torch's own transforms decide."""
    try:
        return by_jets(*problem)
    except (RefusedError, torch.OutOfMemoryError):
        raise
    except NO_JET as error:
        if out_of_memory(error):
            raise
        obstacle = f"{type(error).__name__}: {error}"
    if not torch.compiler.is_compiling():
        _log.info("no Taylor mode, torch's own modes instead: %s", obstacle)
    return by_composition(*problem)


def _check_randomness(randomness: str) -> None:
    if randomness not in ("error", "same"):
        raise ValueError(
            f'expected randomness to be "error" or "same", got {randomness!r}: '
            "second derivatives of different draws belong to no function"
        )
