"""Which operation of a function is responsible for its wrong derivatives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from funcdiff._safety.examination import Examination
from funcdiff._safety.modes import Function, Modes
from funcdiff._torch.trees import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

_STEP = 1e-4
_DIRECTIONS = 3


@dataclass(frozen=True)
class Operation:
    """One torch call inside a function, and how its tensors move in the first few directions of the input."""

    call: Callable[..., Any]
    leaves: list[Any]
    tree: TreeSpec
    tangents: dict[int, Tensor]

    @property
    def name(self) -> str:
        """As in `torch.nn.functional.layer_norm`."""
        return str(resolve_name(self.call) or f"{self.call.__module__}.{self.call.__qualname__}")

    def __call__(self, t: Tensor) -> Tensor:
        """A few combinations of the results, with the arguments moved by `t`."""
        moved = [x.clone() if isinstance(x, Tensor) else x for x in self.leaves]
        for i, tangent in self.tangents.items():
            moved[i] = self.leaves[i] + torch.tensordot(t, tangent, 1)
        args, kwargs = tree_unflatten(moved, self.tree)
        results = [
            y for y in tree_leaves(self.call(*args, **kwargs)) if isinstance(y, Tensor) and y.is_floating_point()
        ]
        flat = torch.cat([y.flatten() for y in results])
        # Any generic numbers, but drawn by no generator: vmap refuses those.
        mixture = torch.arange(1.0, _DIRECTIONS * len(flat) + 1, dtype=torch.float64, device=flat.device).cos()
        return mixture.view(_DIRECTIONS, -1) @ flat


def responsible(
    func: Function, size: int, wrong: Collection[str], modes: Modes, device: torch.device | str = "cpu"
) -> list[str]:
    """The operations on which one of the modes named in `wrong` is wrong alone, in the order `func` calls them.

    A custom `torch.autograd.Function` is invisible to torch's recording: it is named when no operation is at fault.
    """
    names = [operation.name for operation in operations(func, size, device) if wrong_alone(operation, wrong, modes)]
    return list(dict.fromkeys(names)) or _custom_functions(func, size, device)


def operations(func: Function, size: int, device: torch.device | str = "cpu") -> Iterator[Operation]:
    """The torch calls in `func` near the origin that depend on its input, once for each set of shapes.

    Each moves only as `func` moves it, so that one that needs, say, symmetric matrices gets them.
    """
    axes = torch.eye(size, dtype=torch.float64, device=device)[:_DIRECTIONS]
    centre = _record(func, axes.new_zeros(size))
    moved = [(_record(func, _STEP * axis), _record(func, -_STEP * axis)) for axis in axes]
    if any(len(side) != len(centre) for pair in moved for side in pair):
        return  # the path through func depends on the data: its calls cannot be matched
    seen = set()
    for i, (call, leaves, tree) in enumerate(centre):
        tangents = {}
        for j, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float64:
                sides = [(ahead[i][1][j] - behind[i][1][j]) / (2 * _STEP) for ahead, behind in moved]
                if any(side.any() for side in sides):
                    tangents[j] = torch.stack(sides)
        key = str((call, [getattr(leaf, "shape", leaf) for leaf in leaves], list(tangents)))
        usable = tangents and all(leaves[j].isfinite().all() and x.isfinite().all() for j, x in tangents.items())
        if usable and key not in seen:
            seen.add(key)
            yield Operation(call, leaves, tree, tangents)


def wrong_alone(operation: Operation, only: Collection[str], modes: Modes) -> list[str]:
    """Those of the named modes that are wrong on `operation` alone."""
    try:
        tangent = next(iter(operation.tangents.values()))
        func = between_cubics(operation, tangent.new_zeros(len(tangent)))
        verdicts = Examination(func, len(tangent), tangent.device, modes=modes).verdicts(only)
    except (LookupError, RuntimeError, TypeError, ValueError):  # not differentiable alone: an integer result, or none
        return []
    return [verdict.mode for verdict in verdicts if verdict.outcome == "wrong"]


def between_cubics(operation: Function, origin: Tensor) -> Function:
    """`operation` with a cubic before and after it, so that its tangents and cotangents depend on the input too."""
    unit = operation(origin).detach().abs().max().clamp(min=1.0)

    def sandwich(t: Tensor) -> Tensor:
        y = operation(t + t**2 / 2 + t**3 / 6) / unit
        return y + y**2 / 2 + y**3 / 6

    return sandwich


_Call = tuple[Callable[..., Any], list[Any], TreeSpec]


class _Recorder(TorchFunctionMode):
    """Keeps every torch call made inside it, with copies of the arguments it had."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, tree = tree_flatten((args, kwargs or {}))
        self.calls.append((func, [x.detach().clone() if isinstance(x, Tensor) else x for x in leaves], tree))
        return func(*args, **(kwargs or {}))


def _record(func: Function, point: Tensor) -> list[_Call]:
    recorder = _Recorder()
    with recorder:
        func(point)
    return recorder.calls


def _custom_functions(func: Function, size: int, device: torch.device | str) -> list[str]:
    """The custom functions in the graph of `func`."""
    value = func(torch.zeros(size, dtype=torch.float64, device=device, requires_grad=True))
    waiting, seen = [value.grad_fn], set()
    names: list[str] = []
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                names.append(type(node).__name__.removesuffix("Backward"))
    return list(dict.fromkeys(reversed(names)))
