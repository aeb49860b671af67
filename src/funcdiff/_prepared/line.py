"""One line of operations: made for one kind of arguments, and refused for any other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from funcdiff._prepared.checking import copy, lost_paths, other_gradients, refuse_other_results
from funcdiff._prepared.holding import Holding, holding
from funcdiff._prepared.reuse import in_place, without_lone_parts
from funcdiff._prepared.simplify import owned, simplified
from funcdiff._prepared.values import Value, parts_of, ready
from funcdiff._prepared.writing import Written, written
from funcdiff._torch.delicate import singular
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.tensors import place_of
from funcdiff._torch.tracing import fresh, held_tensors, traced
from funcdiff._torch.transforms import undrawn
from funcdiff._torch.trees import Tree, TreeSpec, flatten, unflatten

_AUTOCAST = "cpu", "cuda"  # devices


@dataclass(frozen=True)
class Line:
    """A prepared function for one kind of arguments.

    Attributes:
        kind: What must be the same at each call, leaf by leaf.
        spec: The structure of the arguments.
        tensors: The places of the tensors among the leaves.
        results: The structure of the results.
        finish: What is done with them. The entries of a sparse derivative were traced, and become a matrix.
        written: The operations.
        traced: Their number before anything was left out.
        holding: What the function held.
        memory: The tensors that it held, and where their numbers lay in which order.
        carried: Those of them, by identity, with respect to which the results have gradients.
        lost: Pairs of a result and a source: the function's graph leads from one to the other, and that of the
            operations does not, because the gradient is zero.
        sources: The captured tensors among the sources. The arguments follow them.
        watched: Whether results are looked at: an operation may give NaN where the function itself takes another
            recipe. Not on a GPU, which would have to wait for each.
    """

    kind: list[Any]
    spec: TreeSpec
    tensors: list[int]
    results: TreeSpec
    finish: Callable[[Tree], Tree]
    written: Written
    traced: int
    holding: Holding
    memory: list[tuple[Tensor, Any]]
    carried: frozenset[int]
    lost: Sequence[tuple[int, int]]
    sources: Sequence[Tensor]
    watched: bool

    def __call__(self, leaves: Sequence[Any]) -> Tree:
        """The results, from the leaves of the arguments."""
        return self.finished(self.numbers(leaves))

    def numbers(self, leaves: Sequence[Any]) -> list[Tensor]:
        """What the operations return."""
        tensors = [_in_order(leaves[i]) for i in self.tensors]
        numbers = list(self.written.run(*tensors))
        for result, source in self.lost:
            numbers[result] = numbers[result] + _nothing((*self.sources, *tensors)[source])
        return numbers

    def finished(self, numbers: Sequence[Tensor]) -> Tree:
        """The results, of what the operations returned."""
        return self.finish(unflatten(numbers, self.results))

    def refuse_stale(self) -> None:
        """Raise if the function holds another thing now."""
        if place := self.holding.changed():
            raise RefusedError(
                f"{place} has been replaced since the function was prepared. Prepare it again. If {place} decides "
                "nothing, such as a count of calls, keep it outside of func"
            )
        differentiable = torch.is_grad_enabled()
        for tensor, place in self.memory:
            name = self.holding.names.get(id(tensor), "a held tensor")
            if differentiable and tensor.requires_grad and id(tensor) not in self.carried:
                raise RefusedError(
                    f"{name} requires grad, and the function was prepared without its gradients: under no_grad(), or "
                    "before requires_grad_(). Prepare it again"
                )
            if place_of(tensor) != place:
                raise RefusedError(
                    f"{name} has other memory, or another shape, than when the function was prepared (.data was "
                    "replaced, or a module moved). Prepare it again"
                )


def kind_of(leaves: Sequence[Any]) -> list[Any]:
    """What must be the same at each call: of tensors all but the numbers, of anything else the thing itself."""
    wanted = torch.is_grad_enabled()
    kinds: list[Any] = [
        (x.shape, x.dtype, x.device, x.layout, wanted and x.requires_grad) if isinstance(x, Tensor) else (type(x), x)
        for x in leaves
    ]
    for device in _AUTOCAST:
        if torch.is_autocast_enabled(device):
            kinds.append(f"under autocast to {torch.get_autocast_dtype(device)} on {device}")
    return kinds


def told(kind: Sequence[Any]) -> str:
    """The kind of arguments in words."""
    return ", ".join(
        f"{str(k[1]).removeprefix('torch.')}{list(k[0])} on {k[2]}{' that requires grad' * k[4]}"
        if isinstance(k, tuple) and len(k) == 5
        else k
        if isinstance(k, str)
        else repr(k[1])
        for k in kind
    )


def made(function: Callable[..., Tree], leaves: Sequence[Any], spec: TreeSpec) -> Line:
    """Trace, simplify and check `function` at the arguments of which these are the leaves.

    Raises:
        RefusedError: It may do something else at its next call, or the line does not give what it gives.
    """
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    examples: list[Tensor] = [_in_order(leaves[i]) for i in places]
    structures: list[TreeSpec] = []
    staged = getattr(function, "staged", None)
    run, finish = staged(function, unflatten(leaves, spec)) if staged else (function, lambda results: results)

    def flat(*tensors: Tensor) -> Sequence[Tensor]:
        values = list(leaves)
        for i, tensor in zip(places, tensors, strict=True):
            values[i] = tensor
        results, structure = flatten(run(*unflatten(values, spec)))
        structures.append(structure)
        for result in results:
            if not isinstance(result, Tensor):
                raise RefusedError(f"cannot prepare a function that returns {type(result).__name__}. Return tensors")
        return results

    with undrawn():
        flat(*map(copy, examples))  # an automatic recipe makes its plan here, outside the tracer
    module = traced(flat, examples)
    held = holding(function)
    kept = list({id(t): t for node, t in held_tensors(module).items() if not fresh(node)}.values())
    held.used = frozenset(map(id, kept))
    for tensor in kept:
        if id(tensor) not in held.names:
            raise RefusedError(
                f"cannot prepare a function that uses a tensor of shape {list(tensor.shape)} from a place that Python "
                "cannot inspect (an object of C, or a generator). Pass the tensor as an argument"
            )
    sources = [t for t in kept if t.requires_grad]
    carries = torch.is_grad_enabled() and (bool(sources) or any(x.requires_grad for x in examples))

    def attempt(keep_detach: bool) -> tuple[Written, bool]:
        with torch.no_grad():
            steps, results = simplified(module, [x.detach() for x in examples], keep_detach=keep_detach)
            results = [owned(steps, result) for result in results]
            steps = without_lone_parts(steps)
            if not carries:
                steps, results = in_place(steps, results)
        line = written(steps, results, _name(function), _arguments(function, len(examples)), held.names)
        refuse_other_results(flat, line.run, examples)
        return line, any(map(_may_divide_by_zero, steps))

    # A detach in the trace is the user's own, or what autograd saved: their gradients tell.
    line, watched = attempt(keep_detach=carries)
    if carries and other_gradients(flat, line.run, examples, sources):
        line, watched = attempt(keep_detach=False)
        if why := other_gradients(flat, line.run, examples, sources):
            raise RefusedError(why)
    carried = frozenset(map(id, sources)) if carries else frozenset()
    lost = lost_paths(flat, line.run, examples, sources) if carries else []
    count = sum(node.op == "call_function" for node in module.graph.nodes)
    memory = [(tensor, place_of(tensor)) for tensor in kept]
    watched = watched and not any(x.is_cuda for x in examples)
    kind, results = kind_of(leaves), structures[-1]
    return Line(kind, spec, places, results, finish, line, count, held, memory, carried, lost, sources, watched)


def _may_divide_by_zero(value: Value) -> bool:
    """Whether a step is an operation, on what depends on the arguments, that may give NaN or infinity."""
    if value.target is None or ready(value):
        return False
    name = getattr(getattr(value.target, "overloadpacket", value.target), "__name__", "")
    moving = [part for part in parts_of(value.args) if part.target is not None or part.argument is not None]
    return singular(name, value.args, moving)


def _nothing(x: Tensor) -> Tensor:
    """Zero, as the sum of no numbers of x: its gradient is zero."""
    zero = x.flatten()[:0].sum()
    return zero.real if x.is_complex() else zero  # a real result stays real


def _in_order(x: Tensor) -> Tensor:
    """The same numbers in the layout that the line was made for: its views may need it."""
    return x.contiguous() if x.layout is torch.strided else x


def _name(function: Any) -> str:
    name = str(getattr(function, "__name__", ""))
    return name if name.isidentifier() else "derivative"


def _arguments(function: Any, count: int) -> list[str]:
    try:
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    except (TypeError, ValueError):  # a function of C has none
        names = []
    if len(names) == count:
        return names
    return ["x"] if count == 1 else [f"x{i + 1}" for i in range(count)]
