"""A Jacobian or Hessian for every row of a batch, of a function of one row: vmap over a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import vmap

from funcdiff._automatic import choice, compiling, lookup
from funcdiff._automatic.budget import check_budget, peak_of
from funcdiff._automatic.cache import Last
from funcdiff._automatic.candidates import RECIPES
from funcdiff._automatic.lookup import Choice, Found
from funcdiff._automatic.planning import LOOP, Plan
from funcdiff._automatic.rows import Batch, looped
from funcdiff._automatic.trying import and_beyond, first_working
from funcdiff._calling.arguments import apart, refuse_keywords
from funcdiff._calling.documented import documented
from funcdiff._calling.options import Options
from funcdiff._calling.transform import copied, guarded
from funcdiff._calling.types import Function
from funcdiff._safety.accusing import Check
from funcdiff._safety.known_wrong import JETS
from funcdiff._safety.meaning import by_hand
from funcdiff._safety.planes import check_on_plane, first_not_agreeing, together
from funcdiff._safety.verification import Kind
from funcdiff._safety.verification import check as one_derivative
from funcdiff._torch.compiler import left_alone
from funcdiff._torch.trees import Tree, flatten

of_rows = partial(
    documented,
    func="The function of one row, without the batch axis. Its arguments and its output are tensors, or dicts, lists "
    "and tuples of tensors (pytrees).",
    in_dims="Which axis of each argument is the batch, as in `torch.func.vmap`: one int for all arguments, or a "
    "tuple with an entry for each. None means that all rows share the argument.",
    chunk_size="How many rows of the batch to compute at once. By default, all of them. Smaller chunks need less "
    'memory and more time. "auto" chooses the largest chunks that fit into `budget`.',
    budget='The number of bytes that the call may allocate in addition to its arguments, for `chunk_size="auto"`. '
    "The first call runs a few chunks to count their memory. The caching allocator of a GPU may reserve more.",
    verify=choice.VERIFY,
    randomness='What random operations in `func` do, as in `torch.func.vmap`: "error" raises an error, "same" draws '
    'the same numbers for all rows, and "different" draws other numbers for each row.',
    returns="A function that takes the arguments of `func` with a batch axis and returns the {result}.",
    raises={"MemoryError": "Not even one row at a time fits into the budget, or smaller chunks save no memory."},
)


@of_rows(
    "Jacobians",
    jacobian="The function that computes the Jacobian of a row, such as `jacobian_forward`. By default, one is chosen.",
)
def batch_jacobian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    in_dims: Any = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
    jacobian: Callable[..., Function] = choice.jacobian,
    verify: bool = True,
) -> Function:
    """Compute one Jacobian for each row of a batch.

    `func` takes one row. If it turns a row of shape (3,) into an output of shape (2,), and there are 100 rows, the
    result has the shape (100, 2, 3). Entry b of it is the Jacobian of `func` at row b.

    Example:
        The Jacobian of x^2 has 2 x on its diagonal, for each of two rows.

        >>> import torch
        >>> from funcdiff import batch_jacobian
        >>> batch_jacobian(torch.square)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[[2., 0.],
                 [0., 4.]],
        <BLANKLINE>
                [[6., 0.],
                 [0., 8.]]])

        The same in plain torch:

        >>> from torch.func import jacrev, vmap
        >>> vmap(jacrev(torch.square))(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).shape
        torch.Size([2, 2, 2])

        All rows share an argument for which `in_dims` says None, here the weight. We differentiate with respect to it.

        >>> def func(weight, x):
        ...     return weight * x
        >>> batch_jacobian(func, in_dims=(None, 0))(torch.tensor(5.0), torch.tensor([1.0, 2.0]))
        tensor([1., 2.])

    Method:
        The method is chosen as in `jacobian`, for this number of rows. `explain` shows it. If vmap cannot batch `func`
        (a branch on values, `.detach().item()`, an operation without a batching rule), the rows are differentiated one
        after the other, unless you name a recipe.

    Cost:
        The arithmetic of one Jacobian for each row. The memory is that of `chunk_size` rows.

    See Also:
        `batch_jacobian_summed` if `func` accepts only the whole batch.
    """
    options = Options(argnums, has_aux, None, randomness)
    recipe = None if jacobian is choice.jacobian else jacobian
    return over_rows("jacobian", recipe, func, options, in_dims, chunk_size, budget, verify)


@of_rows(
    "Hessians",
    hessian="The function that computes the Hessian of a row, such as `hessian_taylor`. By default, one is chosen.",
)
def batch_hessian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    in_dims: Any = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | Literal["auto"] | None = None,
    budget: float | None = None,
    randomness: str = "error",
    hessian: Callable[..., Function] = choice.hessian,
    verify: bool = True,
) -> Function:
    """Compute one Hessian for each row of a batch.

    `func` takes one row. If it turns a row of shape (3,) into a scalar, and there are 100 rows, the result has the
    shape (100, 3, 3). Entry b of it is the Hessian of `func` at row b. For outputs of shape (2,), the result has the
    shape (100, 2, 3, 3).

    Example:
        The Hessian of the sum of cubes has 6 x on its diagonal, for each of two rows.

        >>> import torch
        >>> from funcdiff import batch_hessian
        >>> batch_hessian(lambda x: x.pow(3).sum())(torch.tensor([[1.0, 0.0], [2.0, 3.0]]))
        tensor([[[ 6.,  0.],
                 [ 0.,  0.]],
        <BLANKLINE>
                [[12.,  0.],
                 [ 0., 18.]]])

    Method:
        The method is chosen as in `hessian`, for this number of rows. `explain` shows it. If vmap cannot batch `func`
        (a branch on values, `.detach().item()`, an operation without a batching rule), the rows are differentiated one
        after the other, unless you name a recipe.

    Cost:
        The arithmetic of one Hessian for each row. The memory is that of `chunk_size` rows.

    See Also:
        `batch_hessian_summed` if `func` accepts only the whole batch.
    """
    options = Options(argnums, has_aux, None, randomness)
    recipe = None if hessian is choice.hessian else hessian
    return over_rows("hessian", recipe, func, options, in_dims, chunk_size, budget, verify)


def over_rows(
    kind: Kind,
    recipe: Callable[..., Function] | None,
    func: Function,
    options: Options,
    in_dims: Any,
    chunk_size: int | Literal["auto"] | None,
    budget: float | None,
    verify: bool,
) -> Function:
    """The derivative of `func` for every row, by the recipe or, without one, by that of the plan for these rows.

    Also for an empty batch, for a budget and under torch.compile.
    """
    check_budget(chunk_size, budget)
    if recipe is not None:
        recipe(func, **options)  # what is wrong with its options is said at once

    def mapped(recipe: Callable[..., Function]) -> Function:
        return vmap(recipe(func, **options), in_dims=in_dims, randomness=options.randomness)

    last = Last()
    while_compiling = Choice(kind, tuple(RECIPES[kind]), options, verify, compiling.ROWS)
    by_compiler = None if torch.compiler.is_compiling() else compiling.planned(func, while_compiling)

    def unplanned(batch: Batch, chunk: int | None) -> Callable[..., Function] | None:
        if not batch.size or not torch.compiler.is_compiling():
            return choice.for_rows(kind, batch.at_once(chunk))
        name = compiling.name(func, while_compiling, batch.row(0), by_compiler)
        return None if name == compiling.EAGERLY else RECIPES[kind][name]

    @left_alone
    def eagerly(*given: Any) -> Tree:
        return run(*given)

    def explained(args: Sequence[Tree]) -> Found:
        batch = Batch(args, in_dims)
        if budget is None:
            found = found_for(batch)
            return replace(found, plan=found.plan.inside_transform())
        chunk, planned = chunk_within(args, budget)
        found = found_for(batch, planned)
        plan = found.plan.in_chunks(chunk, peak_of(chunk, partial(in_chunks, args, planned=planned)))
        return replace(found, plan=plan.inside_transform())

    def found_for(batch: Batch, chunk: int | None = None, *, untried: bool = False) -> Found:
        names = (*RECIPES[kind], LOOP) if batch.size else tuple(RECIPES[kind])
        planned = Choice(kind, names, options, verify, batch.at_once(chunk))
        return lookup.for_transform(func, planned, batch.row(), inside=True, last=last, untried=untried)

    def run(chunk: int | None, planned: int | None, *args: Tree) -> Tree:
        batch = Batch(args, in_dims)
        if recipe is not None or batch.size is None or torch.compiler.is_compiling():
            row = recipe or unplanned(batch, chunk)
            if row is None:
                return eagerly(chunk, planned, *args)
            return batch.in_parts(mapped(row), chunk, options)  # where in_dims does not fit args, vmap says so

        def numbers(result: Tree) -> Tree:
            return apart(result, options.has_aux)[0]

        def by(name: str, _: int | None) -> Tree:
            one_by_one = name == LOOP
            row = choice.chosen(kind, func, options, verify=verify) if one_by_one else RECIPES[kind][name]
            return batch.in_parts(looped(row, in_dims, options) if one_by_one else mapped(row), chunk, options)

        def of_row(plan: Plan, blocks: Sequence[Tensor], i: int) -> Check:
            flat, point = lookup.value_of(func, copied(batch.row(i)), options)
            return one_derivative(flat, point, [block[i] for block in blocks], kind, plan.sketch)

        def of_plane(plan: Plan, name: str, row: Sequence[Tree], *, under_vmap: bool) -> Check:
            flat, point = lookup.value_of(func, copied(row), options)
            return check_on_plane(RECIPES[kind][name], flat, point, kind, plan.sketch, under_vmap=under_vmap)

        def check(plan: Plan, name: str, result: Tree, doubtful: int | None) -> Check:
            if name == LOOP:
                return Check("agrees", reason="each row has a plan of its own, which is checked")
            blocks = flatten(numbers(result))[0]
            row = batch.row() if doubtful is None else batch.row(doubtful)
            flat, point = lookup.value_of(func, copied(row), options)
            verdicts = [Check("agrees", reason=plan[name].check)]
            asked = not plan[name].check
            if by_hand(plan.sketch):
                verdicts = [together([of_row(plan, blocks, i) for i in batch.some(chunk)])]
                asked = False
            elif asked and doubtful is None and batch.varied and not plan.sketch.draws:
                one = of_row(plan, blocks, min(1, len(blocks[0]) - 1))  # by itself, not under vmap
                verdicts = [one.by_plain if name in JETS else one]
                asked = verdicts[0].unsure  # of two inputs and two outputs differences may say more
            if asked:
                verdicts = [of_plane(plan, name, batch.row(), under_vmap=True)]
            if doubtful is not None:  # vmap would see that row and another one near to it
                verdicts.append(of_plane(plan, name, row, under_vmap=False))
            verdict = first_not_agreeing(verdicts)
            return and_beyond(verdict, result, RECIPES[kind][name], flat, point, kind, plan, under_vmap=True)

        found = found_for(batch, planned or chunk, untried=True)

        def rule() -> str:
            return lookup.no_taylor_rule(func, batch.row(), options)

        return first_working(found, by, check if verify else None, inside=True, rows=True, numbers=numbers, rule=rule)

    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        if budget is None:
            return in_chunks(args, chunk_size)  # type: ignore[arg-type]  # "auto" has a budget
        return in_chunks(args, *chunk_within(args, budget))

    def in_chunks(args: Sequence[Tree], chunk: int | None, planned: int | None = None) -> Tree:
        return guarded(partial(run, chunk, planned), args)

    def chunk_within(args: Sequence[Tree], budget: float) -> tuple[int, int]:
        batch = Batch(args, in_dims)
        settings = kind, options, verify, in_dims, budget
        call = partial(in_chunks, args)
        return lookup.chunk_of_rows((func, recipe), batch.leaves, settings, batch.size or 1, budget, call)

    if recipe is None:
        wrapper.found = explained  # type: ignore[attr-defined]  # for `explain`
    return wrapper
