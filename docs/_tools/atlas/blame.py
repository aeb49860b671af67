"""Which operators are to blame for the wrong verdicts of the derivative atlas, mode by mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from _tools.atlas.data import Atlas, mode_names, outcomes
from funcdiff._torch.operators import known_as

_INNOCENT = 0.85  # an operator is not blamed if this share of the cases with it, or more, is right


def operators_in(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> set[str]:
    """The operators of one forward pass, by name, that a derivative can pass through."""

    def tracked(x: Tensor) -> Tensor:
        return x.detach().requires_grad_(not _discrete(x))

    args, kwargs = tree_map_only(Tensor, tracked, (args, kwargs or {}))
    with _Recorder() as recorder:
        func(*args, **kwargs)
    return recorder.names


class _Recorder(TorchDispatchMode):
    """Keeps the names of the operators that a tensor with a gradient enters and that numbers leave."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        entered = any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves((args, kwargs)))
        left = any(isinstance(y, Tensor) and not _discrete(y) for y in tree_leaves(returned))
        if entered and left:
            self.names.add(known_as(func, args, kwargs or {}))
        return returned


def _discrete(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex())


def known_wrong(atlas: Atlas) -> dict[str, Any]:
    """The torch that was judged, and for each mode the names of the operators to blame."""
    modes = {mode: sorted(blamed(*by_outcome(atlas, mode))) for mode in mode_names(atlas)}
    return {"torch": atlas["torch"].partition("+")[0], "modes": modes}


def by_outcome(atlas: Atlas, mode: str) -> tuple[list[list[set[str]]], list[set[str]]]:
    """For each case that `mode` gets wrong, the operators of every sample; for each all right, the operators in it."""
    wrong, right = [], []
    for entry in atlas["entries"]:
        found = list(zip(outcomes(entry, mode), map(set, entry["operators"]), strict=True))
        if bad := [names for outcome, names in found if outcome == "wrong"]:
            wrong.append(bad)
        elif found and all(outcome == "right" for outcome, _ in found):
            right.append(set().union(*(names for _, names in found)))
    return wrong, right


def blamed(wrong: Sequence[Sequence[set[str]]], right: Iterable[set[str]]) -> set[str]:
    """The operators that explain the samples of the `wrong` cases.

    The most suspect is the one with the lowest share of right cases among those it occurs in, then with the most wrong
    ones; it is blamed, together with its equals, and explains every sample it occurs in. So on with what is left. Of a
    sample whose operators are nearly always right elsewhere none is blamed; what is explained already does not count.
    """
    unexplained = [list(case) for case in wrong]
    faults = _cases_with(unexplained)
    successes = Counter(name for names in right for name in names)

    def share(name: str, faults: Counter[str]) -> float:
        return successes[name] / (successes[name] + faults[name])

    def suspicion(name: str) -> tuple[float, int]:
        return share(name, faults), -faults[name]

    def suspects() -> set[str]:
        left = _cases_with(unexplained)
        return {name for name in left if share(name, left) < _INNOCENT}

    found: set[str] = set()
    while names := suspects():
        first = min(map(suspicion, names))
        found |= {name for name in names if suspicion(name) == first}
        unexplained = [[sample for sample in case if not sample & found] for case in unexplained]
    return found


def _cases_with(cases: Iterable[Iterable[set[str]]]) -> Counter[str]:
    """In how many cases each operator occurs."""
    return Counter(name for case in cases for name in set().union(*case))
