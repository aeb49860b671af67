"""Where a plan comes from: looked up by the function and the kinds of its arguments, or made."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from funcdiff._automatic import cache, planning
from funcdiff._automatic.budget import largest_chunk, plan_within
from funcdiff._automatic.candidates import HESSIANS, JACOBIANS, PRODUCTS
from funcdiff._automatic.planning import Plan
from funcdiff._calling.arguments import aux_apart, check_leaves, check_range, replace_args, select_args
from funcdiff._calling.types import Flat, Function
from funcdiff._safety.obstacles import stand_ins
from funcdiff._safety.verification import check_rows
from funcdiff._torch.transforms import outside, plain_allowed
from funcdiff._torch.trees import Tree, flatten, hashed, unflatten


@dataclass(frozen=True)
class Found:
    """A plan, and under what it is kept."""

    plan: Plan
    key: Hashable

    def keep(self, plan: Plan) -> None:
        """Keep another plan in its place."""
        cache.keep(self.key, plan)


def for_transform(
    names: tuple[str, ...],
    func: Function,
    argnums: int | tuple[int, ...],
    has_aux: bool,
    randomness: str,
    batch: int,
    verify: bool,
    args: Sequence[Tree],
    budget: float | None = None,
    call: Callable[[str, int], Tree] | None = None,
    *,
    inside: bool | None = None,
) -> Found:
    """The plan of a Jacobian or a Hessian, of `batch` such functions at once; with a budget `call` is counted.

    `inside` a transform, where results cannot be read, the plan is checked on numbers that stand in for the arguments.
    """
    check_range(argnums, len(args))
    leaves, spec = flatten(tuple(args))
    inside = not plain_allowed() if inside is None else inside

    def make() -> Plan:
        flat, primals = flattened(func, argnums, has_aux, unflatten(stand_ins(leaves, inside), spec))
        plan = planning.make(names, flat, primals, randomness=randomness, batch=batch, verify=verify)
        if budget is not None and call is not None:
            return plan_within(budget, plan, primals[0].element_size(), call)
        if not (verify and inside) or plan.sketch.draws:
            return plan
        order = 1 if names[0] in JACOBIANS else 2
        recipes: Any = JACOBIANS if order == 1 else HESSIANS
        return _proven(plan, flat, primals, order, lambda name: lambda g, t: recipes[name](g)(t))

    settings = names, argnums, has_aux, randomness, batch, verify, inside, budget, hashed(spec)
    return _looked_up(make, func, leaves, settings, graph=budget is not None)


def for_product(names: tuple[str, ...], func: Function, verify: bool, primals: tuple[Tree, ...]) -> Found:
    """The plan of a product at a point."""
    leaves, spec = flatten(primals)
    inside = not plain_allowed()

    def make() -> Plan:
        flat, copies = flattened(func, tuple(range(len(primals))), False, unflatten(stand_ins(leaves, inside), spec))
        plan = planning.make(names, flat, copies, randomness="error", verify=verify)
        if not (verify and inside):
            return plan
        return _proven(plan, flat, copies, 2, _hessian_by_products)

    return _looked_up(make, func, leaves, (names, verify, inside, hashed(spec)))


def flattened(
    func: Function, argnums: int | tuple[int, ...], has_aux: bool, args: Sequence[Tree]
) -> tuple[Flat, Sequence[Tensor]]:
    """`func` as a function of the differentiated leaves alone, without its aux, and these leaves."""
    primals, in_spec = flatten(select_args(args, argnums))
    check_leaves(primals, "differentiated argument")

    def flat(*moved: Tensor) -> Tree:
        returned = func(*replace_args(args, argnums, unflatten(moved, in_spec)))
        output = aux_apart(returned)[0] if has_aux else returned
        check_leaves(flatten(output)[0], "output of func")
        return output

    return flat, primals


def chunk_of_rows(
    row: Function, leaves: Sequence[Tree], in_dims: Hashable, rows: int, budget: float, call: Callable[[int], Tree]
) -> int:
    """The rows of a batch that `call` may take at once within a budget."""
    key = _key(row, leaves, (in_dims, rows, budget), graph=True)
    if (chunk := cache.find(key)) is None:
        chunk, _ = largest_chunk(rows, budget, 1, call)
        cache.keep(key, chunk)
    return int(chunk)


def _proven(
    plan: Plan, flat: Flat, primals: Sequence[Tensor], order: int, recipe: Callable[[str], Callable[..., Tensor]]
) -> Plan:
    """The plan without the recipes that differences contradict before the first that they do not."""
    for name in plan.usable:
        with outside():
            plan = plan.checked(name, check_rows(recipe(name), flat, primals, order, plan.sketch), inside=True)
        if not plan[name].obstacle:
            return plan
    raise plan.refusal()


def _hessian_by_products(name: str) -> Callable[[Flat, Tensor], Tensor]:
    product = PRODUCTS[name]

    def hessian(g: Flat, t: Tensor) -> Tensor:
        """The Hessian of both outputs, column by column."""
        columns = [[product(lambda t, k=k: g(t)[k], (t,), (v,)) for v in t.new_ones(len(t)).diag()] for k in (0, 1)]
        return torch.stack([torch.stack(some, -1) for some in columns])

    return hessian


def _looked_up(
    make: Callable[[], Plan], func: Function, leaves: Sequence[Tree], settings: Hashable, graph: bool = False
) -> Found:
    key = _key(func, leaves, settings, graph)
    if (plan := cache.find(key)) is None:
        plan = make()
        cache.keep(key, plan)
    return Found(plan, key)


def _key(func: Function, leaves: Sequence[Tree], settings: Hashable, graph: bool) -> Hashable:
    kinds = tuple([cache.described(leaf, 0, False) for leaf in leaves])
    return cache.key_of(func, plain_allowed(), settings, kinds, graph=graph)
