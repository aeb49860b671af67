"""Plans: which recipes are right for a function, the one that would be fastest first."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from funcdiff._automatic.costs import FORMULAS, Cost
from funcdiff._jets.jet import NO_JET
from funcdiff._safety.accusing import INFINITE, Check
from funcdiff._safety.guard import REWRITTEN
from funcdiff._safety.known_wrong import CORRECTED, INSIDE_TRANSFORM, JETS
from funcdiff._safety.meaning import by_hand
from funcdiff._safety.obstacles import KNOWN_WRONG, PLAIN, Obstacles
from funcdiff._torch.delicate import NORMS
from funcdiff._torch.messages import BLOCKED, CUDNN, RefusedError
from funcdiff._torch.tape import Sketch
from funcdiff._torch.trees import Tree
from funcdiff.recipes import taylor


@dataclass(frozen=True)
class Candidate:
    """A recipe, what it would cost where there are formulas for it, and why it must not be taken, or nothing.

    Where there is a budget also the chunk that keeps it, and the peak in bytes. `check` is what was found when a
    result of it was held against differences of the function; nothing before. `settled` says that this was the first
    result of the plan, and not only what it gives in the neighbourhood. `rewritten` are the operators that simpler ones
    stand for, as torch gets them wrong in this recipe.
    """

    name: str
    cost: Cost | None = None
    obstacle: str = ""
    chunk: int | None = None
    peak: int | None = None
    check: str = ""
    settled: bool = False
    rewritten: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """The candidates: those that may be taken first, and of them the fastest.

    `untried` says that the first call is to show whether jets pass through func, and whether its result is right.
    """

    sketch: Sketch
    candidates: tuple[Candidate, ...]
    untried: bool = False

    @functools.cached_property
    def usable(self) -> list[str]:
        """The recipes that may be taken, the best first."""
        return [candidate.name for candidate in self.candidates if not candidate.obstacle]

    @functools.cached_property
    def bare(self) -> bool:
        """Whether func has nothing in whose place a corrected function has something else: an operation, or `.data`."""
        return self.sketch.operators.isdisjoint(REWRITTEN) and not self.sketch.opaque

    @functools.cached_property
    def watched(self) -> bool:
        """Whether later results are looked at: not on a GPU, which would have to wait for each."""
        return self.sketch.delicate and not self.sketch.on_gpu

    @functools.cached_property
    def has_norms(self) -> bool:
        """Whether func has a norm or a distance, of which torch may call a second derivative zero that is not there."""
        return not self.sketch.operators.isdisjoint(NORMS)

    @functools.cached_property
    def _named(self) -> dict[str, Candidate]:
        return {candidate.name: candidate for candidate in self.candidates}

    def __getitem__(self, name: str) -> Candidate:
        return self._named[name]

    def without(self, name: str, obstacle: str) -> Plan:
        """The plan for when a recipe has turned out not to work."""
        rest = [c for c in self.candidates if c.name != name]
        return Plan(self.sketch, (*rest, Candidate(name, None, obstacle)))

    def last(self, name: str) -> Plan:
        """The plan with a recipe after all others."""
        return Plan(self.sketch, (*(c for c in self.candidates if c.name != name), self[name]))

    def in_chunks(self, chunk: int, peak: int) -> Plan:
        """The plan of a batch, of which the best recipe takes so many rows at once, and so many bytes."""
        best = dataclasses.replace(self[self.usable[0]], chunk=chunk, peak=peak)
        return Plan(self.sketch, tuple(best if c.name == best.name else c for c in self.candidates))

    def checked(self, name: str, check: Check, *, inside: bool, settled: bool = False) -> Plan:
        """The plan when a result of a recipe was checked: without it if it was wrong, or if nothing speaks for it.

        Of an operator that is not torch's own no mode is trusted unchecked but plain reverse mode, outside transforms.
        """
        if check.outcome == "wrong":
            return self.without(name, str(check))
        plain = name.partition(",")[0] in PLAIN and not inside and not check.raised
        if check.outcome == "undecided" and self.sketch.foreign and not plain:
            return self.without(name, f"not known to be right on {', '.join(sorted(self.sketch.foreign))}; {check}")
        found = dataclasses.replace(self[name], check=str(check), settled=settled)
        return Plan(self.sketch, tuple(found if c.name == name else c for c in self.candidates))

    def inside_transform(self) -> Plan:
        """The plan with the names of what its recipes become under vmap: of plain autograd, torch.func's own."""

        def named(c: Candidate) -> Candidate:
            name, *variant = c.name.split(", ")
            return dataclasses.replace(c, name=", ".join([INSIDE_TRANSFORM.get(name, name), *variant]))

        return Plan(self.sketch, tuple(map(named, self.candidates)))

    @property
    def obstacles(self) -> str:
        """What speaks against each recipe, in words."""
        names: dict[str, list[str]] = {}
        for c in self.candidates:
            names.setdefault(c.obstacle or NOT_TRIED, []).append(c.name)
        return "; ".join(f"{', '.join(same)}: {obstacle}" for obstacle, same in names.items())

    def refusal(self) -> RefusedError:
        """Why no recipe is left, in words."""
        suspects = ", ".join(sorted(self.sketch.foreign or self.sketch.operators))
        calls = f"func calls {suspects}. " if suspects else ""
        remedy = "Write the operation at fault with simpler ones"
        if known := [c.name.partition(",")[0] for c in self.candidates if c.obstacle.startswith(KNOWN_WRONG)]:
            remedy += f". If you know that torch is right at your arguments, call {known[0]} itself, without a check"
        else:
            remedy += ", or pass verify=False if you mean the derivative that torch gives"
        if any(BLOCKED in c.obstacle for c in self.candidates):
            remedy = "Write the operation at fault with simpler ones, or detach the argument if you mean a constant"
        if all("it raises" in c.obstacle or "no Taylor rule" in c.obstacle for c in self.candidates):
            remedy = (
                "No transform of torch.func differentiates it. Call the recipe outside of vmap and grad, or use "
                "batch_jacobian or batch_hessian, which loop over the rows"
            )
        if any(c.obstacle == INFINITE for c in self.candidates):
            remedy = (
                "The derivative of an operation divides by zero here. It may be a root or a norm at 0, or a number "
                "that a mask leaves out. Replace the number before the operation: torch.where(mask, x, 1.0).sqrt()"
            )
        if any("register_autograd" in c.obstacle for c in self.candidates):
            remedy = "Give the operator a derivative, with torch.library.register_autograd"
        if "_cudnn_rnn" in self.sketch.operators:
            remedy = CUDNN[0].upper() + CUDNN[1:]
        return RefusedError(f"no recipe is known to be right on func ({self.obstacles}). {calls}{remedy}")


NOT_TRIED = "not tried, as its result cannot be checked inside a transform"
LOOP = "a loop over rows"  # of a batch, each differentiated by itself


_FEW = 32  # inputs up to which trying costs no more than a probe; a million pairs of many may not even fit


def make(
    names: Sequence[str],
    flat: Callable[..., Tree],
    primals: Sequence[Tensor],
    *,
    randomness: str,
    batch: int = 1,
    verify: bool = True,
    by_cost: bool = True,
    inside: bool | None = None,
    once_more: bool = False,
    untried: bool = False,
) -> Plan:
    """Order the recipes `names` by predicted time, apart from those that torch gets wrong on an operator of `flat`.

    Recipes without formulas come last, in the order given; without `by_cost` all are taken in that order. `inside`
    says that they will run inside a transform, by default whether this is one; `once_more`, that what they return will
    be differentiated; `untried`, that the caller checks the result, so that no jet is sent through `flat` before if it
    has few inputs.

    Raises:
        RefusedError: `flat` does what no recipe can differentiate, or every recipe is wrong on it.
    """
    obstacles = Obstacles(flat, primals, randomness, verify, inside, once_more)
    plain = obstacles.sketch(False)
    probed = not untried or plain.inputs > _FEW
    if not names[0].startswith("jacobian"):
        obstacles.refuse_one_gradient_only()
    candidates = []
    for name in names:
        obstacle = "" if name == LOOP else obstacles.obstacle(name)
        # Taylor rules, too, write norms as compositions: their elements are those of the corrected function.
        seen = obstacles.sketch(True) if not obstacle and (name in CORRECTED or name in JETS) else plain
        cost = FORMULAS[name].cost(seen, batch) if by_cost and name in FORMULAS else None
        rewritten = frozenset() if obstacle or name == LOOP else obstacles.wrong_by_name(name)
        candidates.append(Candidate(name, cost, obstacle, rewritten=rewritten))
    candidates.sort(key=functools.partial(_preferred, plain, obstacles.inside))
    while (
        candidates[0].name in JETS
        and probed
        and not candidates[0].obstacle
        and (why := no_taylor_rule(flat, primals, randomness))
    ):
        candidates[0] = Candidate(candidates[0].name, candidates[0].cost, why)
        candidates.sort(key=functools.partial(_preferred, plain, obstacles.inside))
    if candidates[0].obstacle:
        raise Plan(plain, tuple(candidates)).refusal()
    return Plan(plain, tuple(candidates), untried)


def order(candidate: Candidate) -> tuple[bool, float]:
    """Those that may be taken first, and of them the fastest."""
    return bool(candidate.obstacle), candidate.cost.seconds if candidate.cost else float("inf")


def _preferred(seen: Sketch, inside: bool, candidate: Candidate) -> tuple[bool, bool, float]:
    """By `order`, but of code of the user's reverse mode alone first: it is how the code defines its derivative.

    A rule for forward mode may be wrong at points that no check has seen. A Jacobian can be checked at each call, but
    not inside a transform.
    """
    blocked, seconds = order(candidate)
    forward = "forward" in candidate.name and (inside or not candidate.name.startswith("jacobian"))
    return blocked, bool(by_hand(seen)) and forward, seconds


def no_taylor_rule(flat: Callable[..., Tree], primals: Sequence[Tensor], randomness: str) -> str:
    """What stops jets on their way through the function, by sending one through."""
    try:
        taylor.probe(flat, primals, randomness)
    except RefusedError:
        raise
    except NO_JET as error:
        return f"no Taylor rule: {error}"
    return ""
