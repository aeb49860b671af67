"""Which operation of a function is responsible for its wrong derivatives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from funcdiff._judging import Examination
from funcdiff._modes import Function

_STEP = 1e-4
_DIRECTIONS = 3

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


def responsible(func: Function, size: int, modes: Collection[str], device: torch.device | str = "cpu") -> list[str]:
    """The operations on which one of `modes` is wrong when each is taken alone, in the order `func` calls them.

    Each operation is moved only along the directions in which `func` moves its arguments, so one that needs, say,
    symmetric matrices still gets them. A custom `torch.autograd.Function` is invisible to torch's recording: it is
    named when no recorded operation is at fault.
    """
    names = [
        name for name, alone in _alone(func, size, device) if _is_wrong(alone, min(size, _DIRECTIONS), modes, device)
    ]
    return list(dict.fromkeys(names)) or _custom_functions(func, size, device)


def between_cubics(operation: Function, origin: Tensor) -> Function:
    """`operation` with a cubic before and after it, so that its tangents and cotangents depend on the input too."""
    unit = operation(origin).detach().abs().max().clamp(min=1.0)

    def sandwich(t: Tensor) -> Tensor:
        y = operation(t + t**2 / 2 + t**3 / 6) / unit
        return y + y**2 / 2 + y**3 / 6

    return sandwich


def _record(func: Function, point: Tensor) -> list[_Call]:
    recorder = _Recorder()
    with recorder:
        func(point)
    return recorder.calls


def _alone(func: Function, size: int, device: torch.device | str) -> Iterator[tuple[str, Function]]:
    """Each operation, once per set of shapes, as a function of the first few input directions."""
    axes = torch.eye(size, dtype=torch.float64, device=device)[:_DIRECTIONS]
    centre = _record(func, axes.new_zeros(size))
    moved = [(_record(func, _STEP * axis), _record(func, -_STEP * axis)) for axis in axes]
    if any(len(side) != len(centre) for pair in moved for side in pair):
        return  # the path through func depends on the data: its calls cannot be matched
    seen = set()
    for i, (operation, leaves, tree) in enumerate(centre):
        tangents = {}
        for j, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float64:
                sides = [(ahead[i][1][j] - behind[i][1][j]) / (2 * _STEP) for ahead, behind in moved]
                if any(side.any() for side in sides):
                    tangents[j] = torch.stack(sides)
        key = (operation, tuple(getattr(leaf, "shape", leaf) for leaf in leaves), tuple(tangents))
        if tangents and str(key) not in seen:
            seen.add(str(key))
            yield resolve_name(operation) or operation.__name__, _moving(operation, leaves, tree, tangents)


def _moving(operation: Callable[..., Any], leaves: list[Any], tree: TreeSpec, tangents: dict[int, Tensor]) -> Function:
    def alone(t: Tensor) -> Tensor:
        moved = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
        for j, tangent in tangents.items():
            moved[j] = leaves[j] + torch.tensordot(t, tangent, 1)
        args, kwargs = tree_unflatten(moved, tree)
        outputs = [
            y for y in tree_leaves(operation(*args, **kwargs)) if isinstance(y, Tensor) and y.is_floating_point()
        ]
        y = torch.cat([y.flatten() for y in outputs])
        mixture = torch.randn(_DIRECTIONS, len(y), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return mixture.to(y) @ y

    return alone


def _is_wrong(func: Function, size: int, modes: Collection[str], device: torch.device | str) -> bool:
    try:
        examination = Examination(
            between_cubics(func, torch.zeros(size, dtype=torch.float64, device=device)), size, device
        )
        return any(verdict.outcome == "wrong" for verdict in examination.verdicts(modes))
    except Exception:  # not an operation that can be differentiated alone: an integer result, a view of nothing
        return False


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
