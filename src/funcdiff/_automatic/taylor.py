"""Taylor mode: the function runs once and carries all its derivatives along, first and second."""

from __future__ import annotations

import logging
from typing import Any

import torch

from funcdiff._automatic.candidates import RECIPES
from funcdiff._automatic.choice import VERIFY, chosen
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff._jets.jet import NO_JET
from funcdiff._safety.verification import Kind
from funcdiff._torch.compiler import eagerly, named_after
from funcdiff._torch.messages import RefusedError, out_of_memory
from funcdiff._torch.trees import Tree

_log = logging.getLogger("funcdiff.taylor")


ONE_DRAW = (
    'What random operations in `func` do: "error" refuses them, and "same" uses one draw that all derivatives share.'
)
ERRORS = {
    "ValueError": '`argnums` or `chunk_size` is out of range, or `randomness` is "different": second derivatives of '
    "different draws belong to no function.",
    "RuntimeError": "`func` does something on which the modes of torch disagree (`no_grad()`, `.item()`, a batch norm "
    "in training mode), or writes into its argument.",
}


@documented(
    "Hessian",
    chunk_size="The number of second derivatives to compute at once, each time with the first derivatives that they "
    "need, by default all. Fewer need less memory and more time.",
    randomness=ONE_DRAW,
    raises=ERRORS,
)
def hessian_taylor(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Hessian by Taylor mode: fast if `func` has many outputs and few inputs.

    The function runs once, and each number carries its n first derivatives and its n (n + 1) / 2 different second
    derivatives along.

    Some operations have no Taylor rule: complex numbers, an RNN, a custom autograd function, a transform in `func`.
    torch's own modes then compute the whole Hessian, as `hessian` chooses, and the logger ``funcdiff.taylor`` says so.
    Under torch.compile, keep custom autograd functions out of `func`: torch 2.13 then differentiates their forward
    formula instead of using the derivative that they define, in `torch.func.hessian` as well.

    Source: Griewank and Walther, Evaluating Derivatives (2008), chapter 13.

    Cost: (1 + n + n (n + 1) / 2) F for any number of outputs. Forward over reverse needs (1 + n)(1 + m) F, which is
    less for m = 1.

    Example:
        The Hessian of x^2 y at (3, 5) has the entries 2 y, 2 x and 0.

        >>> import torch
        >>> hessian_taylor(lambda x: x[0] ** 2 * x[1])(torch.tensor([3.0, 5.0]))
        tensor([[10.,  6.],
                [ 6.,  0.]])
    """
    options = one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return _by_jets("hessian", func, options)


@documented(
    "Jacobian",
    chunk_size="The number of first derivatives to compute at once, by default all.",
    randomness=ONE_DRAW,
    raises=ERRORS,
)
def jacobian_taylor(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Compute the Jacobian by Taylor mode: forward mode without torch's multiplications by zero.

    The function runs once, and each number carries its n first derivatives along. If an operation has no Taylor rule,
    torch's own modes compute the Jacobian, and the logger ``funcdiff.taylor`` says so.

    Cost: (1 + n) F, where `jacobian_forward` needs (2 + n) F.

    Example:
        The Jacobian of (x z, y z) at (3, 5, 7) has z on the diagonal and x and y in the last column.

        >>> import torch
        >>> jacobian_taylor(lambda x: x[:2] * x[2])(torch.tensor([3.0, 5.0, 7.0]))
        tensor([[7., 0., 3.],
                [0., 7., 5.]])
    """
    options = one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return _by_jets("jacobian", func, options)


@documented(
    "diagonal",
    chunk_size="The number of inputs to differentiate with respect to at once, by default all.",
    verify=VERIFY,
    randomness=ONE_DRAW,
    raises=ERRORS,
)
def hessian_diagonal(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
    verify: bool = True,
) -> Function:
    """Compute the diagonal of the Hessian: the second derivative of each output with respect to each input.

    The function runs once, and each number carries its n first and its n unmixed second derivatives along.

    Shapes: Those of a Jacobian: the shape of the output followed once by the shape of the input.

    Cost: (1 + 2 n) F for any number of outputs, and never a Hessian. If an operation has no Taylor rule, the cost is
    (1 + n)(1 + m) F by forward over reverse, one column at a time.

    Example:
        The diagonal of the Hessian of x^2 y at (1, 3) is (2 y, 0).

        >>> import torch
        >>> hessian_diagonal(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 3.0]))
        tensor([6., 0.])
    """
    options = one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return chosen("diagonal", func, options, verify=verify)


def _by_jets(kind: Kind, func: Function, options: Options) -> Function:
    """By jets if they pass through func. What stops them is no error yet: of that, torch's own modes decide."""
    taylor, *others = RECIPES[kind]
    jets, modes = RECIPES[kind][taylor](func, **options), chosen(kind, func, options, names=tuple(others))

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        try:
            with eagerly():
                return jets(*args, **kwargs)
        except NO_JET as error:
            if isinstance(error, RefusedError) or out_of_memory(error):
                raise
            obstacle = f"{type(error).__name__}: {error}"
        if not torch.compiler.is_compiling():
            _log.info("no Taylor mode, torch's own modes instead: %s", obstacle)
        return modes(*args, **kwargs)

    return wrapper


def one_draw(options: Options) -> Options:
    if options.randomness == "different":
        raise ValueError(
            f'expected randomness to be "error" or "same", got {options.randomness!r}: '
            "with another draw for each direction, the derivatives belong to no function"
        )
    return options
