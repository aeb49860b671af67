"""Taylor mode: the function runs once and carries all its derivatives along, first and second."""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch

from funcdiff._automatic.candidates import RECIPES
from funcdiff._automatic.choice import chosen
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff._jets.jet import NO_JET
from funcdiff._safety.verification import Kind
from funcdiff._torch.messages import RefusedError, out_of_memory
from funcdiff._torch.trees import Tree

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
    options = _one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return _by_jets("hessian", func, options)


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
    options = _one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return _by_jets("jacobian", func, options)


def hessian_diagonal(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    verify: bool = True,
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
    options = _one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return chosen("diagonal", func, options, verify=verify)


def laplacian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    verify: bool = True,
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
        verify: whether the first result of a plan is held against differences of func.

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
    options = _one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return chosen("laplacian", func, options, verify=verify)


def _by_jets(kind: Kind, func: Function, options: Options) -> Function:
    """By jets if they pass through func. What stops them is no error yet: of that, torch's own modes decide."""
    taylor, *others = RECIPES[kind]
    jets, modes = RECIPES[kind][taylor](func, **options), chosen(kind, func, options, names=tuple(others))

    @functools.wraps(func, updated=())
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        try:
            return jets(*args, **kwargs)
        except NO_JET as error:
            if isinstance(error, RefusedError) or out_of_memory(error):
                raise
            obstacle = f"{type(error).__name__}: {error}"
        if not torch.compiler.is_compiling():
            _log.info("no Taylor mode, torch's own modes instead: %s", obstacle)
        return modes(*args, **kwargs)

    return wrapper


def _one_draw(options: Options) -> Options:
    if options.randomness == "different":
        raise ValueError(
            f'expected randomness to be "error" or "same", got {options.randomness!r}: '
            "second derivatives of different draws belong to no function"
        )
    return options
