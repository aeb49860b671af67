"""Where a plan comes from: looked up by the function and the kinds of its arguments, or made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence

from torch import Tensor

from funcdiff._automatic import cache, planning
from funcdiff._automatic.budget import largest_chunk, plan_within
from funcdiff._automatic.planning import Plan
from funcdiff._calling.arguments import apart, check_range
from funcdiff._calling.options import Options
from funcdiff._calling.transform import taken_apart
from funcdiff._calling.types import Function
from funcdiff._safety.obstacles import stand_ins
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten, hashed, unflatten

Found = tuple[Plan, Callable[[Plan], None]]  # a plan, and how to keep another in its place


def for_transform(
    names: tuple[str, ...],
    func: Function,
    options: Options,
    batch: int,
    args: Sequence[Tree],
    budget: float | None = None,
    call: Callable[[str, int], Tree] | None = None,
) -> Found:
    """The plan of a Jacobian or a Hessian, of `batch` such functions at once; with a budget `call` is counted."""
    check_range(options.argnums, len(args))
    leaves, spec = flatten(tuple(args))

    def make() -> Plan:
        copies = unflatten(stand_ins(leaves), spec)
        flat, primals = taken_apart(func, copies, options)

        def output(*moved: Tensor) -> Tree:
            return apart(flat(*moved), options.has_aux)[0]

        plan = planning.make(names, output, primals, randomness=options.randomness, batch=batch)
        if budget is None or call is None:
            return plan
        return plan_within(budget, plan, primals[0].element_size(), call)

    settings = names, options.argnums, options.has_aux, options.randomness, batch, budget, hashed(spec)
    return _looked_up(make, func, leaves, settings, graph=budget is not None)


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
    key = _key(row, leaves, (in_dims, rows, budget), graph=True)
    if (chunk := cache.find(key)) is None:
        chunk, _ = largest_chunk(rows, budget, 1, call)
        cache.keep(key, chunk)
    return int(chunk)


def _looked_up(
    make: Callable[[], Plan], func: Function, leaves: Sequence[Tree], settings: Hashable, graph: bool = False
) -> Found:
    key = _key(func, leaves, settings, graph)
    keep = functools.partial(cache.keep, key)
    if (plan := cache.find(key)) is None:
        plan = make()
        keep(plan)
    return plan, keep


def _key(func: Function, leaves: Sequence[Tree], settings: Hashable, graph: bool) -> Hashable:
    kinds = tuple([cache.described(leaf, 0, False) for leaf in leaves])
    return cache.key_of(func, plain_allowed(), settings, kinds, graph=graph)
