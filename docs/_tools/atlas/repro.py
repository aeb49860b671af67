"""Searches the wrong samples of the atlas for the shortest scripts that show what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_unflatten

from _tools.atlas.blame import operators_in
from _tools.atlas.cases import Sample
from _tools.atlas.scripts import EXPRESSIONS, LONGEST, differ, numbers, worst, writers
from funcdiff._safety.culprits import Operation, operations, wrong_alone
from funcdiff._safety.modes import Modes

_DIRECTIONS = 3
_ATTEMPTS = 3  # samples tried for a mode


@dataclass(frozen=True)
class Suspect:
    """A sample of a case, and what was found on it."""

    case: str
    sample: Sample
    wrong: list[str]
    right: list[str]

    def operations(self) -> Iterator[Operation]:
        """The torch calls inside, then the case as a whole."""
        subject = self.sample.subject(_DIRECTIONS)
        yield from operations(subject, subject.size)
        if self.sample.call:
            yield self.sample.operation(_DIRECTIONS)


def reproductions(operator: str, suspects: Iterable[Suspect], modes: Modes) -> Iterator[dict[str, Any]]:
    """Scripts that show `operator` wrong in every mode that some suspect is wrong in, as far as they are found."""
    suspects = list(suspects)
    missing = {mode for suspect in suspects for mode in suspect.wrong if mode in EXPRESSIONS}
    tried: Counter[str] = Counter()
    for suspect in suspects:
        wrong = {mode for mode in missing & set(suspect.wrong) if tried[mode] < _ATTEMPTS}
        tried.update(wrong)
        for operation in suspect.operations() if wrong else ():
            if operator not in _operators(operation):
                continue
            alone = wrong if operation.call is suspect.sample.call else wrong_alone(operation, wrong, modes)
            for mode in EXPRESSIONS:
                if mode in missing & set(alone) and (script := reproduction(operation, mode, alone, suspect.right)):
                    missing -= set(script["modes"])
                    yield {"operator": operator, "case": suspect.case, "operation": operation.name} | script


def reproduction(
    operation: Operation, mode: str, wrong: Collection[str], right: Collection[str]
) -> dict[str, Any] | None:
    """The first script that shows `mode` wrong on `operation`, and which others of `wrong` its like shows wrong too.

    Where some mode is right, its like must show that one right: then the differences can be trusted.
    """
    witness = next((name for name in right if name in EXPRESSIONS and _order(name) == _order(mode)), None)
    for write in writers(operation):
        found = numbers(write(mode))
        if found is None or len(write(mode)) > LONGEST or not differ(*found):
            continue
        check = numbers(write(witness)) if witness else found
        if check is None or (witness and differ(*check)):
            continue
        others = {name: numbers(write(name)) for name in wrong if _order(name) == _order(mode)}
        modes = [name for name, values in others.items() if values is not None and differ(*values)]
        return {"modes": modes, "script": write(mode), **worst(*found)}
    return None


def _operators(operation: Operation) -> set[str]:
    def func(*moved: Tensor) -> Any:
        leaves = list(operation.leaves)
        for i, x in zip(operation.tangents, moved, strict=True):
            leaves[i] = x
        args, kwargs = tree_unflatten(leaves, operation.tree)
        return operation.call(*args, **kwargs)

    try:
        return operators_in(func, [operation.leaves[i] for i in operation.tangents])
    except Exception:  # an operation that refuses a gradient somewhere
        return set()


def _order(mode: str) -> str:
    """First or second derivative, in a batch or differentiated once more or neither."""
    variant = mode.partition(", ")[2].removeprefix("chunk_size=1")
    return ("first" if mode.startswith("jacobian") else "second") + variant
