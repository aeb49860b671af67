"""Where a plan comes from: looked up by the function and the kinds of its arguments, or made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from funcdiff._automatic import cache, planning
from funcdiff._automatic.budget import largest_chunk, plan_within
from funcdiff._automatic.candidates import PRODUCTS, RECIPES
from funcdiff._automatic.describing import BARE, SHORT
from funcdiff._automatic.planning import LOOP, Plan
from funcdiff._automatic.unchanged import captured
from funcdiff._calling.arguments import apart, check_range
from funcdiff._calling.lazy import refuse_lazy
from funcdiff._calling.options import Options
from funcdiff._calling.transform import taken_apart
from funcdiff._calling.types import Function
from funcdiff._calling.wrapped import refuse_wrapped
from funcdiff._safety.guard import Recipe
from funcdiff._safety.lines import Func
from funcdiff._safety.obstacles import stand_ins, trained_through
from funcdiff._safety.planes import and_elsewhere, check_on_plane
from funcdiff._safety.training import check_training
from funcdiff._safety.verification import Kind
from funcdiff._torch.compiler import eagerly, left_alone
from funcdiff._torch.reading import reading
from funcdiff._torch.standing_in import outside_of
from funcdiff._torch.transforms import kept_for_gradients, outside, plain_allowed, unobserved
from funcdiff._torch.trees import Tree, flatten, hashed, unflatten


@dataclass(frozen=True)
class Choice:
    """What is asked for: a kind of derivative by one of the recipes `names`, of `batch` such functions at once."""

    kind: Kind
    names: tuple[str, ...]
    options: Options
    verify: bool = True
    batch: int = 1
    asked: Hashable = field(init=False, compare=False)  # what of it decides a plan: the chunk does not

    def __post_init__(self) -> None:
        options = self.options
        asked = self.kind, self.names, options.argnums, options.has_aux, options.randomness, self.batch, self.verify
        object.__setattr__(self, "asked", asked)  # frozen for all others


@dataclass(frozen=True)
class Found:
    """A plan, under what it is kept, if it is, and whether plain autograd is available where it was asked for."""

    plan: Plan
    key: Hashable | None
    plain: bool

    def keep(self, plan: Plan) -> None:
        """Keep another plan in its place."""
        if self.key is not None:
            cache.keep(self.key, plan)


@left_alone
def for_transform(
    func: Function,
    choice: Choice,
    args: Sequence[Tree],
    budget: float | None = None,
    call: Callable[[str, int], Tree] | None = None,
    *,
    inside: bool | None = None,
    proven: Callable[[Plan, Func, Sequence[Tensor]], Plan] | None = None,
    last: cache.Last | None = None,
) -> Found:
    """The plan of a transform: that of its `last` call if nothing changed, one that is kept, or a new one.

    With a budget, `call` is run and counted. `inside` a transform, where results cannot be read, a plan is checked when
    it is made, by `proven` if that is given.
    """
    options = choice.options
    leaves, spec = flatten(tuple(args))
    plain = plain_allowed()
    inside = not plain if inside is None else inside
    asked = choice.asked, inside, budget, hashed(spec)
    kinds = plain, asked, *map(_kind, leaves)
    if last and (recalled := last.find(func, kinds)):
        return recalled  # type: ignore[no-any-return]  # as it was remembered
    check_range(options.argnums, len(args))
    once_more = kept_for_gradients(leaves)

    def make() -> Plan:
        flat, primals = value_of(func, unflatten(stand_ins(leaves), spec), options)
        flat = outside_of(flat, captured(func))
        plan = planning.make(
            choice.names,
            flat,
            primals,
            randomness=options.randomness,
            batch=choice.batch,
            verify=choice.verify,
            by_cost=choice.kind in ("jacobian", "hessian"),
            inside=inside,
            once_more=once_more,
        )
        if budget is not None and call is not None:
            return plan_within(budget, plan, primals[0].element_size(), call)
        if not (choice.verify and inside) or plan.sketch.draws:
            return plan
        if proven is not None:
            return proven(plan, flat, primals)
        again = not plain_allowed() and (once_more or trained_through(plan.sketch))  # else the first result is checked
        return _proven(plan, flat, primals, choice.kind, lambda name, _: RECIPES[choice.kind][name], again=again)

    return _looked_up(func, leaves, asked, make, kinds, last, plain=plain)


@left_alone
def for_product(
    names: tuple[str, ...],
    func: Function,
    verify: bool,
    primals: tuple[Tree, ...],
    kind: Kind = "hessian",
    last: cache.Last | None = None,
) -> Found:
    """The plan of a product with the Hessian, or with the Jacobian, at a point."""
    leaves, spec = flatten(primals)
    inside = not (plain := plain_allowed())
    asked = names, verify, inside, hashed(spec)
    kinds = plain, asked, *map(_kind, leaves)
    if last and (recalled := last.find(func, kinds)):
        return recalled  # type: ignore[no-any-return]  # as it was remembered
    once_more = kept_for_gradients(leaves)

    def make() -> Plan:
        every = Options(tuple(range(len(primals))))
        flat, copies = value_of(func, unflatten(stand_ins(leaves), spec), every)
        flat = outside_of(flat, captured(func))
        plan = planning.make(names, flat, copies, randomness="error", verify=verify, once_more=once_more)
        if not (verify and inside):
            return plan
        recipe = hessian_by_products if kind == "hessian" else jacobian_by_products
        again = once_more or trained_through(plan.sketch)
        return _proven(plan, flat, copies, kind, recipe, again=again)

    return _looked_up(func, leaves, asked, make, kinds, last, plain=plain)


def value_of(func: Function, args: Sequence[Tree], options: Options) -> tuple[Func, Sequence[Tensor]]:
    """`func` as a function of the differentiated leaves alone, without its aux, and these leaves."""
    flat, primals = taken_apart(func, args, options)
    return lambda *moved: apart(flat(*moved), options.has_aux)[0], primals


def chunk_of_rows(
    func: Any, leaves: Sequence[Tree], settings: Hashable, rows: int, budget: float, call: Callable[[int, int], Tree]
) -> tuple[int, int]:
    """The rows of a batch that `call` may take at once within a budget, and for how many its recipe is planned.

    For all of them, or else for one: another recipe for each chunk would need another memory, and no chunk would say
    what the next one needs.
    """
    key = _key(func, leaves, settings)
    if (found := cache.find(key)) is None:
        with reading() as read:
            try:
                found = largest_chunk(rows, budget, 1, lambda chunk: call(chunk, rows))[0], rows
            except MemoryError as error:
                try:
                    found = largest_chunk(rows, budget, 1, lambda chunk: call(chunk, 1))[0], 1
                except MemoryError:
                    raise error from None
        if not read.seen and _key(func, leaves, settings) == key:
            cache.keep(key, found)
    return found  # type: ignore[no-any-return]  # as it was kept


def _proven(
    plan: Plan,
    flat: Func,
    primals: Sequence[Tensor],
    kind: Kind,
    recipe: Callable[[str, int | None], Recipe],
    *,
    again: bool,
) -> Plan:
    """The plan without the recipes that differences contradict before the first that they do not.

    `recipe` is given a name, and the number of outputs to check it on if it is one of products; `again` says that what
    they return is differentiated once more. What fails under vmap may work in another transform: where no loop can
    stand in for it, it comes last.
    """
    outputs = min(2, max(1, plan.sketch.outputs))
    raising: list[str] = []
    for name in plan.usable:
        if name == LOOP:
            break  # of each row it takes what is planned for it
        with outside():
            found = check_on_plane(recipe(name, outputs), flat, primals, kind, plan.sketch, under_vmap=True)
            found = and_elsewhere(found, recipe(name, outputs), flat, primals, kind, plan.sketch, under_vmap=True)
            if found.raised and LOOP not in plan.usable:
                alone = check_on_plane(recipe(name, outputs), flat, primals, kind, plan.sketch, under_vmap=False)
                found = alone if alone.outcome == "wrong" else found
            if again and found.outcome != "wrong" and not found.raised:
                trained = check_training(recipe(name, None), flat, primals, plan.sketch, under_vmap=True)
                found = trained if trained.outcome == "wrong" or trained.unsure else found
        if found.raised and LOOP in plan.usable:
            plan = plan.without(name, found.reason)
        else:
            plan = plan.checked(name, found, inside=True)
        if found.raised:
            raising.append(name)
        elif found.unsure:  # another may agree
            plan = plan.last(name)
        elif not plan[name].obstacle:
            break
    if not plan.usable:
        raise plan.refusal()
    return functools.reduce(Plan.last, raising, plan)


def jacobian_by_products(name: str, _: int | None) -> Recipe:
    """The recipe for whole Jacobians that differentiates as the products do, to be checked."""
    return RECIPES["jacobian"][name.partition(",")[0]]


def hessian_by_products(name: str, outputs: int | None = 2) -> Recipe:
    """A product as a recipe for whole Hessians of a few inputs, to be checked; without `outputs` of a number."""
    product = PRODUCTS[name]

    def hessian(g: Function) -> Function:
        """The Hessian of each output, column by column."""

        def columns(t: Tensor) -> Tensor:
            axes = t.new_ones(len(t)).diag()

            def hessian(output: Function) -> Tensor:
                return torch.stack([product(output, (t,), (v,)) for v in axes], -1)

            if outputs is None:
                return hessian(g)
            return torch.stack([hessian(lambda t, k=k: g(t)[k]) for k in range(outputs)])

        return columns

    return hessian


@left_alone
def _looked_up(
    func: Function,
    leaves: Sequence[Tree],
    asked: Hashable,
    make: Callable[[], Plan],
    kinds: Hashable,
    last: cache.Last | None,
    *,
    plain: bool,
) -> Found:
    """The plan that is kept, or else one that is made."""
    refuse_lazy(func)
    refuse_wrapped(func)
    key = _key(func, leaves, asked)
    if (plan := cache.find(key)) is not None:
        found = Found(plan, key, plain)
        if last:
            last.remember(func, kinds, key, found)
        return found
    with unobserved(), eagerly():
        plan = make()
    if plan.sketch.reads_values or _key(func, leaves, asked) != key:
        return Found(plan, None, plain)  # func may do something else at the next call
    cache.keep(key, plan)
    return Found(plan, key, plain)


def _kind(leaf: Any) -> Hashable:
    """A leaf as far as the plan depends on it; equal to no other unless that is seen at once."""
    kind: Any = type(leaf)
    return SHORT[kind](leaf) if kind in SHORT else leaf if kind in BARE else object()


def _key(func: Any, leaves: Sequence[Tree], settings: Hashable) -> Hashable:
    return cache.key_of((func, *leaves), plain_allowed(), settings)
