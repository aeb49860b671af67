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
    'What random operations in `func` do. "error" refuses them, and "same" draws the same numbers for all derivatives.'
)
ERRORS = {
    "ValueError": '`argnums` or `chunk_size` has a value that is not allowed, or `randomness` is "different": '
    "derivatives with different draws belong to different functions.",
    "RuntimeError": "`func` contains something on which forward and reverse mode disagree, such as `.item()` or a "
    "batch norm that updates its running statistics; where the name says Taylor, also `no_grad()`.",
}


@documented(
    "Hessian",
    chunk_size="How many second derivatives to compute at once, together with the first derivatives that they need. "
    "By default, all of them. Smaller chunks need less memory and more time.",
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

    If `x` has the shape (3,) and `func(x)` the shape (100,), the result has the shape (100, 3, 3). In Taylor mode,
    `func` runs once. Each number in it carries its n first derivatives and its n (n + 1) / 2 different second
    derivatives. For one input, the square at 3 carries the numbers 9, 6 and 2. `hessian` takes the same arguments and
    chooses the method itself.

    Example:
        The Hessian of :math:`x^2 y` at (3, 5) has the entries 2 y, 2 x and 0.

        >>> import torch
        >>> from funcdiff import hessian_taylor
        >>> hessian_taylor(lambda x: x[0] ** 2 * x[1])(torch.tensor([3.0, 5.0]))
        tensor([[10.,  6.],
                [ 6.,  0.]])

    Method:
        Some operations have no rule for this: complex numbers, RNNs, custom autograd functions, and transforms inside
        `func`. Another method, chosen as in `hessian`, then computes the whole Hessian, and the logger
        ``funcdiff.taylor`` says so.

    Cost:
        1 + n + n (n + 1) / 2 evaluations of `func` for n inputs and any number of outputs. For one output and four
        inputs or more, forward over reverse needs less: 2 (1 + n) evaluations, with what torch adds up to 2 (2 + n).

    Source:
        Griewank and Walther, Evaluating Derivatives (2008), chapter 13.

    Notes:
        torch.compile ignores the derivative that a custom autograd function in `func` defines. The Hessian of such a
        `func` is left out of the compiled code, and with fullgraph=True it is refused.
    """
    options = one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return _by_jets("hessian", func, options)


@documented(
    "Jacobian",
    chunk_size="How many first derivatives to compute at once. By default, all of them.",
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
    """Compute the Jacobian by Taylor mode: forward mode with less arithmetic than torch's.

    If `x` has the shape (3,) and `func(x)` the shape (2,), the result has the shape (2, 3). In Taylor mode, `func` runs
    once, and each number in it carries its n first derivatives. torch's forward mode does the same, but it also
    multiplies by the derivatives of constant weights, which are zero. `jacobian` takes the same arguments and chooses
    the method itself.

    Example:
        The Jacobian of (x z, y z) at (3, 5, 7) has z on the diagonal and x and y in the last column.

        >>> import torch
        >>> from funcdiff import jacobian_taylor
        >>> jacobian_taylor(lambda x: x[:2] * x[2])(torch.tensor([3.0, 5.0, 7.0]))
        tensor([[7., 0., 3.],
                [0., 7., 5.]])

    Cost:
        1 + n evaluations of `func` for n inputs, where `jacobian_forward` needs 2 + n. If an operation has no rule in
        Taylor mode, another method computes the whole Jacobian, and the logger ``funcdiff.taylor`` says so.
    """
    options = one_draw(Options(argnums, has_aux, chunk_size, randomness))
    return _by_jets("jacobian", func, options)


@documented(
    "diagonal",
    chunk_size="With respect to how many inputs to differentiate at once. By default, all of them.",
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

    If `x` has the shape (3,) and `func(x)` is a scalar, the result has the shape (3,). If `func(x)` has the shape (2,),
    the result has the shape (2, 3). The rest of the Hessian is not computed.

    Example:
        The diagonal of the Hessian of :math:`x^2 y` at (1, 3) is (2 y, 0).

        >>> import torch
        >>> from funcdiff import hessian_diagonal
        >>> hessian_diagonal(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 3.0]))
        tensor([6., 0.])

        The same in plain torch, which computes the whole Hessian:

        >>> torch.func.hessian(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 3.0])).diagonal()
        tensor([6., 0.])

    Method:
        `func` runs once. Each number in it carries its n first derivatives and n second derivatives (Taylor mode). If
        an operation has no rule for this, another method is used, usually forward mode over reverse mode.

    Cost:
        1 + 2 n evaluations of `func` for n inputs and any number of outputs. The whole Hessian takes little more for
        one output, and about m times as much for m outputs. Without a rule, the diagonal takes (1 + n)(1 + m)
        evaluations for m outputs.

    See Also:
        `laplacian` for the sum of the diagonal, and `diagonal_estimate` for an estimate if there are many inputs.
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
