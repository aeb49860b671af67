"""Sparse Jacobians and Hessians: the pattern found by running the function once, and as few passes as it allows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from funcdiff._automatic import cache, lookup
from funcdiff._automatic.budget import NO_COUNTING_INSIDE, check_budget, largest_chunk
from funcdiff._automatic.candidates import RECIPES
from funcdiff._automatic.lookup import Choice
from funcdiff._automatic.sparse_explaining import SparseExplanation
from funcdiff._automatic.sparse_patterns import planned
from funcdiff._automatic.sparse_plan import ContradictedError, Kind, SparsePlan
from funcdiff._calling.arguments import refuse_keywords
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.transform import guarded, taken_apart
from funcdiff._calling.types import Function
from funcdiff._calling.wrapped import refuse_wrapped
from funcdiff._sparse.pattern import Pattern
from funcdiff._torch.compiler import eagerly, left_alone, named_after
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.tracing import being_traced
from funcdiff._torch.transforms import plain_allowed, transforms_active
from funcdiff._torch.trees import Tree, flatten, hashed
from funcdiff.recipes.products import SCALAR

Stages = tuple[Function, Callable[[Tree], Tree]]  # what to trace, and what is done with its results
_KEPT = 8  # plans of a transform, as patterns are large
LAYOUTS = (torch.sparse_csr, torch.sparse_coo, torch.strided, None)
SPARSE = functools.partial(
    documented,
    argnums="Which argument to differentiate with respect to: its position, or a tuple of positions. The columns of "
    "the matrix are the entries of these arguments, in order.",
    chunk_size="How many passes to compute at once. By default, all of them, or fewer on a CPU if their vectors do "
    'not fit into its cache. "auto" chooses as many as fit into `budget`.',
    budget='The number of bytes that the call may allocate in addition to its arguments, for `chunk_size="auto"`. '
    "The first call runs a few chunks to count their memory.",
    pattern="The positions of the entries that may differ from zero, if you know them: a result of "
    "`jacobian_pattern` or `hessian_pattern`, a SciPy matrix or a tensor. By default, the first call finds them.",
    layout="The layout of the result: ``torch.sparse_csr``, ``torch.sparse_coo``, or ``torch.strided`` for a dense "
    "matrix. None returns the entries alone, a vector in the order of the pattern. Inside vmap, grad and jvp, "
    "torch has no sparse tensors, so use ``torch.strided`` or None there.",
    check="Whether to compare the matrix with a product along a random direction. True checks every result, and "
    "False none. By default, the first result is checked. If you passed a pattern, or if the pattern depends on "
    "values that may change, every result is checked.",
    raises={
        "ValueError": "`argnums` or `chunk_size` has a value that is not allowed, or `pattern` has the wrong shape.",
        "RuntimeError": "`func` converts a tensor that depends on its input to a Python number, draws random "
        "numbers, or writes into its argument or a captured tensor. Or the matrix is not sparse: the inputs on which "
        "the outputs depend are more than 20 million in all. Or `pattern` lacks an entry, or no pattern agrees with "
        "`func`.",
        "MemoryError": "Not even one pass at a time fits into the budget.",
    },
)


@SPARSE("matrix")
def jacobian_sparse(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    pattern: Any = None,
    layout: torch.layout | None = torch.sparse_csr,
    check: bool | None = None,
) -> Function:
    """Compute a sparse Jacobian: only the entries that can differ from zero are computed and stored.

    Use it if each output depends on only a few inputs. The result is a sparse matrix of shape (m, n), for n numbers in
    the input and m in the output. By default, it is a CSR tensor. The positions of its entries are found for you.

    Example:
        The differences of neighbours have two entries in each row. Two passes compute them all.

        >>> import torch
        >>> from funcdiff import jacobian_sparse
        >>> jacobian_sparse(lambda x: x[1:] - x[:-1])(torch.zeros(4)).to_dense()
        tensor([[-1.,  1.,  0.,  0.],
                [ 0., -1.,  1.,  0.],
                [ 0.,  0., -1.,  1.]])

        Make the function once and call it often: the later calls do not search for the positions again.

        >>> slopes = jacobian_sparse(lambda x: x[1:] ** 2)
        >>> slopes(torch.tensor([1.0, 2.0, 3.0])).values(), slopes(torch.tensor([0.0, 1.0, 1.0])).values()
        (tensor([4., 6.]), tensor([2., 2.]))

    Method:
        At the first call, `func` runs once, and each number carries the set of inputs that it depends on. This gives
        the pattern of the matrix. Columns without a common row are then computed together, in one forward pass, or rows
        without a common column in one backward pass: the fewest passes are used, and of as many the faster ones. The
        example needs two, however long `x` is.

        The function that is returned keeps this plan. So call `jacobian_sparse` once, and its result often. `explain`
        shows the plan.

    Cost:
        About as many passes as the fullest row or the fullest column has entries, whichever are fewer. Each is as
        much arithmetic as one evaluation of `func`. The first call also finds the pattern, which takes as long as
        hundreds of evaluations.

    See Also:
        `jacobian_pattern` for the pattern alone.
    """
    check_budget(chunk_size, budget)
    options = Options(argnums, has_aux, None if chunk_size == "auto" else chunk_size)
    return _transform("jacobian", func, options, pattern, layout, check, budget)


@SPARSE("matrix", func=SCALAR)
def hessian_sparse(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    pattern: Any = None,
    layout: torch.layout | None = torch.sparse_csr,
    check: bool | None = None,
) -> Function:
    """Compute the sparse Hessian of a scalar function: only the entries that can differ from zero.

    Use it if `func` is a sum of terms with few inputs each. The result is a sparse matrix of shape (n, n), for n
    numbers in the input. By default, it is a CSR tensor. The positions of its entries are found for you.

    Example:
        The sum of the products of neighbours has ones beside the diagonal.

        >>> import torch
        >>> from funcdiff import hessian_sparse
        >>> hessian_sparse(lambda x: (x[1:] * x[:-1]).sum())(torch.zeros(3)).to_dense()
        tensor([[0., 1., 0.],
                [1., 0., 1.],
                [0., 1., 0.]])

    Method:
        The matrix is computed from a few Hessian-vector products, as in `jacobian_sparse`. Because it is symmetric,
        fewer products are enough: three for a tridiagonal matrix, and two if only the diagonal, one row and its column
        are not zero.

    Cost:
        As much arithmetic as 2 + 2 p evaluations of `func` for p products, and the graph of two passes in memory. The
        first call also finds the pattern, which takes as long as hundreds of evaluations.

    Source:
        Gebremedhin, Manne and Pothen, "What color is your Jacobian?" (2005), on star colouring.

    See Also:
        `hessian_pattern` for the pattern alone.
    """
    check_budget(chunk_size, budget)
    options = Options(argnums, has_aux, None if chunk_size == "auto" else chunk_size)
    return _transform("hessian", func, options, pattern, layout, check, budget)


class _Plans:
    """The plans that a transform keeps; in slots, where `prepare` does not watch what its function holds."""

    __slots__ = "given", "kept"

    def __init__(self, given: Pattern | None) -> None:
        self.given = given
        self.kept: dict[Any, SparsePlan] = {}


def _transform(
    kind: Kind,
    func: Function,
    options: Options,
    pattern: Any,
    layout: torch.layout | None,
    check: bool | None,
    budget: float | None,
) -> Function:
    if layout not in LAYOUTS:
        raise ValueError(f"expected layout to be one of {LAYOUTS}, got {layout!r}")
    made_inside = torch.compiler.is_compiling()
    plans = _Plans(None if pattern is None else Pattern.of_matrix(pattern))

    def found(args: Sequence[Tree]) -> tuple[SparsePlan, bool]:
        """The plan, and whether it was there before."""
        leaves, spec = flatten(tuple(args))
        settings = plain_allowed(), hashed(spec)
        key = cache.key_of((func, *leaves), *settings)
        if (plan := plans.kept.get(key)) is not None:
            return plan, True
        plan = planned(kind, func, args, options, plans.given)
        if budget is not None:
            plan.chunk, _ = largest_chunk(plan.together, budget, 1, lambda chunk: counted(plan, args, chunk))
        if not plan.reads and cache.key_of((func, *leaves), *settings) == key:
            while len(plans.kept) >= _KEPT:
                plans.kept.pop(next(iter(plans.kept)), None)
            plans.kept[key] = plan
        return plan, False

    def counted(plan: SparsePlan, args: Sequence[Tree], chunk: int) -> None:
        entries(plan, args, dataclasses.replace(options, chunk_size=chunk), False)

    def entries(plan: SparsePlan, args: Sequence[Tree], options: Options = options, check: bool | None = check) -> Tree:
        """The entries, and the aux if there is one."""

        def run(*copies: Tree) -> Tree:
            flat, primals = taken_apart(func, copies, options)
            values, *aux = plan.values(flat, primals, options, check)
            return (values, *aux) if aux else values

        with eagerly():
            return guarded(run, args)

    def finished(plan: SparsePlan, results: Tree) -> Tree:
        """The matrix in place of its entries."""
        if options.has_aux:
            return plan.matrix(results[0], layout), *results[1:]
        return plan.matrix(results, layout)

    def result(plan: SparsePlan, args: Sequence[Tree]) -> Tree:
        return finished(plan, entries(plan, args))

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        if made_inside and torch.compiler.is_compiling():
            raise RefusedError(
                f"call {kind}_sparse(func) outside of the function that torch.compile compiles, and the result inside"
            )
        return eager(args)

    @left_alone
    def eager(args: Sequence[Tree]) -> Tree:
        if budget is not None and not plain_allowed():
            raise RefusedError(NO_COUNTING_INSIDE)
        if layout not in (torch.strided, None) and (transforms_active() or being_traced()):
            raise RefusedError(
                f"torch has no sparse tensors inside vmap, grad, jvp and its tracer. Pass layout=None to {kind}_sparse "
                f"for the entries alone, in the order of {kind}_pattern, or layout=torch.strided for a dense matrix"
            )
        refuse_wrapped(func)
        plan, kept = found(args)
        try:
            return result(plan, args)
        except ContradictedError:
            if not kept or plans.given is not None:
                raise
        plans.kept.clear()  # values that the pattern depends on have changed
        return result(found(args)[0], args)

    def explained(args: Sequence[Tree]) -> SparseExplanation:
        dense = lookup.for_transform(func, Choice(kind, tuple(RECIPES[kind]), options), args).plan
        return SparseExplanation(found(args)[0], dense)

    def staged(function: Function, args: Sequence[Tree]) -> Stages:
        """For `prepare`: the entries, which torch can trace, and what makes them a matrix."""
        if function is not wrapper:  # one that only has the attributes of this one
            return function, lambda results: results
        plan, _ = found(args)
        return lambda *args: entries(plan, args), lambda results: finished(plan, results)

    wrapper.staged = staged  # type: ignore[attr-defined]  # for `prepare`
    wrapper.explained = explained  # type: ignore[attr-defined]  # for `explain`
    return wrapper
