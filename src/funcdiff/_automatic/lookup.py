"""Where a plan comes from: looked up by the function and the kinds of its arguments, or made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence

from torch import Tensor

from funcdiff._automatic import cache, planning
from funcdiff._automatic.budget import largest_chunk, plan_within
from funcdiff._automatic.planning import Plan
from funcdiff._calling.arguments import check_leaves, check_range, replace_args, select_args
from funcdiff._calling.types import Function
from funcdiff._safety.obstacles import stand_ins
from funcdiff._torch.reading import reading
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten, hashed, unflatten

Found = tuple[Plan, Callable[[Plan], None]]  # a plan, and how to keep another in its place


def for_transform(
    names: tuple[str, ...],
    func: Function,
    argnums: int | tuple[int, ...],
    has_aux: bool,
    randomness: str,
    batch: int,
    args: Sequence[Tree],
    budget: float | None = None,
    call: Callable[[str, int], Tree] | None = None,
) -> Found:
    """The plan of a Jacobian or a Hessian, of `batch` such functions at once; with a budget `call` is counted."""
    check_range(argnums, len(args))
    leaves, spec = flatten(tuple(args))

    def make() -> Plan:
        copies = unflatten(stand_ins(leaves), spec)
        primals, in_spec = flatten(select_args(copies, argnums))
        check_leaves(primals, "differentiated argument")

        def flat(*moved: Tensor) -> Tree:
            returned = func(*replace_args(copies, argnums, unflatten(moved, in_spec)))
            return returned[0] if has_aux else returned

        plan = planning.make(names, flat, primals, randomness=randomness, batch=batch)
        if budget is None or call is None:
            return plan
        return plan_within(budget, plan, primals[0].element_size(), call)

    settings = names, argnums, has_aux, randomness, batch, budget, hashed(spec)
    return _looked_up(make, func, leaves, settings)


def for_product(names: tuple[str, ...], func: Function, primals: tuple[Tree, ...]) -> Found:
    """The plan of a product at a point."""
    leaves, spec = flatten(primals)

    def make() -> Plan:
        def flat(*moved: Tensor) -> Tree:
            return func(*unflatten(moved, spec))

        return planning.make(names, flat, stand_ins(leaves), randomness="error")

    return _looked_up(make, func, leaves, (names, hashed(spec)))


def chunk_of_rows(
    row: Function, leaves: Sequence[Tree], in_dims: Hashable, rows: int, budget: float, call: Callable[[int], Tree]
) -> int:
    """The rows of a batch that `call` may take at once within a budget."""
    settings = in_dims, rows, budget
    key = _key(row, leaves, settings)
    if (chunk := cache.find(key)) is None:
        with reading() as read:
            chunk, _ = largest_chunk(rows, budget, 1, call)
        if not read.seen and _key(row, leaves, settings) == key:
            cache.keep(key, chunk)
    return int(chunk)


def _looked_up(make: Callable[[], Plan], func: Function, leaves: Sequence[Tree], settings: Hashable) -> Found:
    key = _key(func, leaves, settings)
    keep = functools.partial(cache.keep, key)
    if (plan := cache.find(key)) is None:
        plan = make()
        if plan.sketch.reads_values or _key(func, leaves, settings) != key:
            return plan, lambda plan: None  # func may do something else at the next call
        keep(plan)
    return plan, keep


def _key(func: Function, leaves: Sequence[Tree], settings: Hashable) -> Hashable:
    return cache.key_of((func, *leaves), plain_allowed(), settings)
