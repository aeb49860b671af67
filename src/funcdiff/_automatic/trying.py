"""The first recipe of a plan that works: its results are checked, and where they are not finite, looked at again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcdiff._automatic.lookup import Found
from funcdiff._automatic.planning import Plan
from funcdiff._jets.jet import NoRuleError
from funcdiff._safety.accusing import ENDLESS, Check, near
from funcdiff._safety.guard import Recipe, has_graph
from funcdiff._safety.known_wrong import JETS
from funcdiff._safety.lines import Func
from funcdiff._safety.meaning import by_hand
from funcdiff._safety.planes import and_elsewhere
from funcdiff._safety.training import check_training
from funcdiff._safety.verification import Kind
from funcdiff._torch.compiler import EAGERLY, left_alone
from funcdiff._torch.messages import cannot, reason
from funcdiff._torch.tensors import all_finite, spread_out
from funcdiff._torch.tracing import being_traced
from funcdiff._torch.transforms import plain_allowed, unobserved
from funcdiff._torch.trees import Tree, flatten, map_leaves

_INFINITE = "is not finite where {} is"


def and_beyond(
    verdict: Check,
    result: Tree,
    recipe: Recipe,
    flat: Func,
    point: Sequence[Tensor],
    kind: Kind,
    plan: Plan,
    *,
    under_vmap: bool,
) -> Check:
    """`verdict`, or why the recipe is wrong elsewhere, or must not be trained through, where the result can be."""
    verdict = and_elsewhere(verdict, recipe, flat, point, kind, plan.sketch, under_vmap=under_vmap)
    return and_trained(verdict, result, recipe, flat, point, plan, under_vmap=under_vmap)


def and_trained(
    verdict: Check, result: Tree, recipe: Recipe, flat: Func, point: Sequence[Tensor], plan: Plan, *, under_vmap: bool
) -> Check:
    """`verdict`, or why the recipe must not be trained through, where the result can be."""
    if verdict.outcome == "wrong" or not has_graph(result):
        return verdict
    trained = check_training(recipe, flat, point, plan.sketch, under_vmap=under_vmap)
    return trained if trained.outcome == "wrong" or trained.unsure else verdict


def _instead(verdict: Check) -> str:
    """Why another recipe, to be named, was taken in place of an unsure one."""
    if verdict.reason == ENDLESS:
        return f"{ENDLESS}, where {{}} is"
    return f"{verdict.gap:.1g} from differences of func, with which {{}} agrees"


def _borne_out(
    name: str, result: Tree, unknown: dict[str, tuple[Tree, str]], plan: Plan, numbers: Callable[[Any], Tree]
) -> str:
    """By which of the recipes whose results differences do not settle this one has the same numbers, or none.

    One of the two must be by Taylor rules and the other not, and func torch's own with nothing cut out of the graph.
    """
    if plan.sketch.foreign or plan.sketch.cuts:
        return ""
    others = [
        other
        for other, (_, why) in unknown.items()
        if (other in JETS) != (name in JETS) and not why.startswith(ENDLESS)
    ]
    rounding = plan.sketch.epsilon**0.5

    def alike(other: str) -> bool:
        pairs = zip(_with_values(numbers(result)), _with_values(numbers(unknown[other][0])), strict=True)
        return all(near(x, y, plan.sketch, scale=rounding) for x, y in pairs)

    return next(filter(alike, others), "")


def _doubtful(plan: Plan, numbers: Tree, *, rows: bool) -> bool:
    """Whether a later result is to be checked: it is not finite, or zero where a norm may have no derivative.

    `rows` says that each row of it is looked at by itself. See NOTE [vanishing].
    """
    if not plan.has_norms or not all_finite(numbers):
        return not all_finite(numbers)
    if rows:
        return first_doubtful(plan, numbers) is not None
    tensors = _with_values(numbers)
    return bool(tensors) and not any(bool(x.any()) for x in tensors)


def first_doubtful(plan: Plan, derivative: Tree) -> int | None:
    """The first row with a number that is not finite; or else, where a norm may have no derivative, of zeros alone."""
    tensors = _with_values(derivative)
    if not plan.has_norms and all_finite(tensors):
        return None
    blocks = [x.reshape(len(x), -1) for x in tensors]
    doubts = [~x.isfinite().all(1) for x in blocks]
    if blocks and plan.has_norms and not any(bool(rows.any()) for rows in doubts):
        doubts = [~torch.stack([x.any(1) for x in blocks]).any(0)]
    return min((int(rows.nonzero()[0]) for rows in doubts if rows.any()), default=None)


def _with_values(numbers: Tree) -> list[Tensor]:
    return [x.detach() for x in flatten(numbers)[0] if isinstance(x, Tensor) and x.numel() and not x.is_meta]


@left_alone
def first_working(
    found: Found,
    run: Callable[[str, int | None], Tree],
    check: Callable[..., Check] | None,
    *,
    inside: bool = False,
    rows: bool = False,
    numbers: Callable[[Any], Tree] = lambda result: result,
    rule: Callable[[], str] = lambda: "",
) -> Tree:
    """The result of the best recipe; where torch cannot differentiate that way, or is wrong, of the next from then on.

    `run` is given the name of the recipe and the chunk planned for it; func itself has run before, when the plan was
    made, so that an error is one of the recipe. A first result is checked, `check` being given the plan, the name and
    the result. `inside` says that recipes run inside a transform; `rows`, that a result has a row for each of several
    points, of which `check` is also given the first doubtful one; `numbers`, which of a result are the derivative;
    `rule`, why jets do not pass through func, if that was not tried when the plan was made.

    NOTE [not finite]. A recipe may give NaN at one point and be right at others. Where an operation of func allows it,
    a look at each later result finds this, and that result is checked as a first one is. If differences decide nothing,
    the next recipe that agrees with them is taken; if none does, the derivative may not exist, and NaN says so.

    NOTE [vanishing]. Where a norm is zero and its argument does not move, as that of x.square() at 0, torch's second
    derivative is zero, although there may be none. Taylor mode alone tells the one from the other.

    NOTE [too little to say]. A result may be too near to differences to be called wrong, and too far to be right: an
    error may be small along one direction. The next recipe that agrees with them is taken. Where Taylor rules and
    torch's formulas give the same, which have nothing in common, the differences are at fault: no other is asked. So it
    is where plain autograd gives the same along that direction, which costs a few calls and no second recipe. Of a
    batch they have vmap in common.
    """
    with EAGERLY:
        return _first_working(found, run, check, inside, rows, numbers, rule)


# What torch.func says of a function in the old style, whatever it does, and of a derivative that does not exist: if
# plain autograd stops as well, it names the operation.
_OF_TRANSFORMS = "setup_context", "Expected a proper Tensor but got None", "Cannot access storage of TensorWrapper"


def _first_working(
    found: Found,
    run: Callable[[str, int | None], Tree],
    check: Callable[..., Check] | None,
    inside: bool,
    rows: bool,
    numbers: Callable[[Any], Tree],
    rule: Callable[[], str],
) -> Tree:
    plan = found.plan
    stopped: Exception | None = None
    doubted = False
    # Results of which differences do not say enough, and why not to take them.
    unknown: dict[str, tuple[Tree, str]] = {}
    own = bool(by_hand(plan.sketch))
    # A rule of the user's for forward mode is checked at each call; where results cannot be read, it comes last.
    unread = own and being_traced()
    for name in sorted(plan.usable, key=lambda name: "forward" in name) if unread else plan.usable:
        candidate = plan[name]
        if check and not candidate.check and found.plan[found.plan.usable[0]].check and not plain_allowed():
            continue  # values cannot be read here, to make up for it
        try:
            result = run(name, candidate.chunk)
            verdict, fine = None, True
            asked = not candidate.settled or plan is not found.plan or bool(unknown) or (own and "forward" in name)
            readable = (asked or (plan.watched and not being_traced())) and plain_allowed() and not unread
            if check and readable and (asked or _doubtful(plan, numbers(result), rows=rows)):
                with unobserved():
                    # To look at a large result takes longer than to check it; where nothing can, no row is NaN alone.
                    looked = rows and (plan.sketch.delicate or plan.sketch.foreign)
                    doubtful = first_doubtful(plan, numbers(result)) if looked else None
                    verdict = check(plan, name, result, doubtful) if rows else check(plan, name, result)
                    fine = doubtful is None if rows and not plan.has_norms else all_finite(numbers(result))
                    verdict = verdict.by_plain if name in JETS and not unknown else verdict
        except Exception as error:  # raised again unless torch cannot do it in this way
            if plan.untried and name in JETS and (why := rule()):
                plan = plan.without(name, why)
                continue
            if not cannot(error):
                raise
            stopped = error if stopped is None or any(said in str(stopped) for said in _OF_TRANSFORMS) else stopped
            plan = plan.without(name, f"it raises: {reason(error)}" if inside else reason(error))
            continue
        if verdict is not None:
            checked = plan.checked(name, verdict, inside=inside, settled=True)
            if not candidate.settled or checked[name].obstacle:
                plan = checked
            if checked[name].obstacle:
                doubted = True
                continue
            infinite = not fine and (verdict.raised or not math.isnan(verdict.gap))
            may_settle = verdict.unsure and verdict.reason != ENDLESS and not rows
            if may_settle and (same := _borne_out(name, result, unknown, plan, numbers)):
                for other in unknown.keys() - {same}:
                    plan = plan.without(other, f"contradicts {same} and {name}, which agree")
                unknown = {same: unknown[same]}
                break
            if infinite or verdict.unsure:
                unknown[name] = result, _INFINITE if infinite else _instead(verdict)
            if name in unknown or (unknown and verdict.outcome == "undecided"):
                continue
            for other, (_, why) in unknown.items():
                plan = plan.without(other, why.format(name))
        if plan is not found.plan:
            found.keep(plan)
        return map_leaves(spread_out, result)
    if unknown:
        result, why = next(iter(unknown.values()))
        if why != _INFINITE:
            found.keep(plan)
        return map_leaves(spread_out, result)
    both = (found.plan, found.plan.inside_transform())  # the error names a recipe as the one or as the other
    known_wrong = (c.name.partition(",")[0] for plan in both for c in plan.candidates if c.obstacle)
    doubted |= isinstance(stopped, NoRuleError)  # which says nothing of the other recipes
    if doubted or stopped is None or any(name in str(stopped) for name in known_wrong):  # it may advise one of them
        raise plan.refusal() from stopped
    raise stopped
