"""The pattern of a sparse Jacobian or Hessian, found by running the function once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from funcdiff._automatic import sparse_plan
from funcdiff._automatic.sparse_plan import Kind, SparsePlan
from funcdiff._automatic.unchanged import captured
from funcdiff._calling.arguments import check_range
from funcdiff._calling.options import Options
from funcdiff._calling.transform import taken_apart
from funcdiff._calling.types import Function
from funcdiff._safety.obstacles import stand_ins
from funcdiff._sparse.pattern import Pattern
from funcdiff._torch.compiler import eagerly
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.standing_in import outside_of
from funcdiff._torch.transforms import transforms_active, unobserved, unwrapped
from funcdiff._torch.trees import Tree, flatten, unflatten


def jacobian_pattern(
    func: Function, *primals: Tree, argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Pattern:
    """Find which entries of the Jacobian can differ from zero, by running the function once.

    The result is a `Pattern` of shape (m, n), for n numbers in the input and m in the output. Print it to see the
    matrix as a picture. Pass it to `jacobian_sparse`, or convert it with `pattern.scipy()` to a SciPy matrix of ones.

    Example:
        Each difference of neighbours depends on two inputs.

        >>> import torch
        >>> from funcdiff import jacobian_pattern
        >>> pattern = jacobian_pattern(lambda x: x[1:] - x[:-1], torch.zeros(100))
        >>> pattern.shape, pattern.nnz, pattern.passes
        ((99, 100), 198, 2)

    Args:
        func: The function. Its arguments and its output are tensors, or dicts, lists and tuples of tensors (pytrees).
        *primals: The arguments of `func`.
        argnums: Which argument to differentiate with respect to: its position, or a tuple of positions.
        has_aux: Set it to True if `func` returns `(output, aux)`.

    Returns:
        The pattern, with its `shape`, its number of entries `nnz` and the number of `passes` that `jacobian_sparse`
        needs. It contains every entry that can differ from zero for arguments of these shapes, and may contain more. If
        `func` branches on values, or if values of captured tensors decide the pattern, it is valid for this branch and
        these values only, and its `note` says so.

    Raises:
        TypeError: The output, or an argument to differentiate with respect to, is not a dense tensor of real
            floating-point numbers.
        RuntimeError: As in `jacobian_sparse`.
    """
    return _pattern("jacobian", func, primals, Options(argnums, has_aux))


def hessian_pattern(
    func: Function, *primals: Tree, argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Pattern:
    """Find which entries of the Hessian of a scalar function can differ from zero, by running its gradient once.

    The result is a `Pattern` of shape (n, n), for n numbers in the input. Pass it to `hessian_sparse`.

    Example:
        The sum of the products of neighbours has a Hessian with two entries in most rows.

        >>> import torch
        >>> from funcdiff import hessian_pattern
        >>> pattern = hessian_pattern(lambda x: (x[1:] * x[:-1]).sum(), torch.zeros(100))
        >>> pattern.shape, pattern.nnz, pattern.passes
        ((100, 100), 198, 3)

    Args:
        func: The function. It returns a scalar, and its arguments are tensors, or dicts, lists and tuples of tensors
            (pytrees).
        *primals: The arguments of `func`.
        argnums: Which argument to differentiate with respect to: its position, or a tuple of positions.
        has_aux: Set it to True if `func` returns `(output, aux)`.

    Returns:
        The pattern, as `jacobian_pattern` returns it.

    Raises:
        TypeError: The output, or an argument to differentiate with respect to, is not a dense tensor of real
            floating-point numbers.
        ValueError: `func` does not return a scalar.
        RuntimeError: As in `hessian_sparse`.
    """
    return _pattern("hessian", func, primals, Options(argnums, has_aux))


def _pattern(kind: Kind, func: Function, primals: Sequence[Tree], options: Options) -> Pattern:
    return planned(kind, func, primals, options, None).pattern


def planned(kind: Kind, func: Function, args: Sequence[Tree], options: Options, pattern: Pattern | None) -> SparsePlan:
    """The plan for these arguments, made at other numbers, outside of modes and transforms."""
    check_range(options.argnums, len(args))
    leaves, spec = flatten(tuple(args))
    with unobserved(), eagerly():
        pairs = zip(leaves, stand_ins(leaves), strict=True)
        point = [leaf if _decides(leaf) and _readable(leaf) else number for leaf, number in pairs]
        flat, primals = taken_apart(func, unflatten(point, spec), options)
        held = captured(func)
        plan = sparse_plan.make(kind, outside_of(flat, held), primals, options, pattern)
    numbers = (*leaves, *held)
    if plan.pattern.note and transforms_active() and any(_decides(x) and not _readable(x) for x in numbers):
        raise RefusedError(
            f"{plan.pattern.note}, and values cannot be read inside vmap, grad and jvp. Find the pattern outside with "
            f"{kind}_pattern, and pass it as pattern"
        )
    return plan


def _decides(leaf: Any) -> bool:
    """Whether an argument may be an index, on whose values a pattern depends."""
    return isinstance(leaf, Tensor) and not leaf.is_floating_point()


def _readable(leaf: Tensor) -> bool:
    """Whether the values of an argument are at hand, also inside a transform."""
    return not unwrapped(leaf)[1]
