"""A function linearized at a point: the maps v -> Jv and u -> J^T u, without the Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from funcdiff._calling.operator import Leaves, Map, Maps, Operator, Space
from funcdiff._calling.options import Options
from funcdiff._calling.plain import backward, tracked
from funcdiff._calling.point import check_primals
from funcdiff._calling.transform import guarded, taken_apart
from funcdiff._calling.types import Flat, Function, Primals
from funcdiff._torch.compiler import left_alone
from funcdiff._torch.graph import End, ends, survey
from funcdiff._torch.transforms import jvp, plain_allowed, vjp
from funcdiff._torch.trees import Tree, flatten, unflatten

T = TypeVar("T")


@dataclass(frozen=True)
class Linearized:
    """What `func` returns at a point, and its Jacobian there as two maps of leaves."""

    value: Callable[[], Tree]
    along: Along
    pull: Map  # u -> J^T u
    inputs: Space

    def push(self, v: Leaves) -> Leaves:
        """Multiply by J."""
        return self.along(v)[1]

    @property
    def jacobian(self) -> Operator:
        """The two maps as an operator."""
        return Operator(Maps.of(self.push, self.pull), self.inputs, Space.of((self.value(),)))


Along = Callable[[Leaves], tuple[Tree, Leaves]]  # v -> the output and Jv
Middle = Callable[[Tree], Map]  # the output -> the map u -> M u
Formula = Callable[[Flat, Primals], tuple[Callable[[], Tree], Along, Map]]


def linearized(formula: Formula, func: Function, primals: tuple[Tree, ...]) -> Linearized:
    """`func` at the primals, which are copied, linearized by one of the formulas below."""
    check_primals(primals)
    space = Space.of(primals)

    def run(*copies: Tree) -> Linearized:
        value, along, pull = formula(*_flat(func, copies))
        value()  # func runs here, where its errors come with a remedy
        return Linearized(value, along, pull, space)

    made: Linearized = guarded(run, primals)
    return made


def product_through(
    formula: Formula, middle: Middle, func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]
) -> Leaves:
    """J^T M J v for one v, where M belongs to the output: nothing outlives it."""

    def run(*copies: Tree) -> Leaves:
        _, along, pull = formula(*_flat(func, copies))
        output, pushed = along(flatten(tangents)[0])
        return pull(middle(output)(pushed))

    product: Leaves = guarded(run, primals)
    return product


def once(make: Callable[[], T]) -> Callable[[], T]:
    """What `make` returns at its first call; as functools.cache, which torch.compile cannot trace."""
    made: list[T] = []

    def result() -> T:
        if not made:
            made.append(make())
        return made[0]

    return result


def by_double_backward(flat: Flat, x: Primals) -> tuple[Callable[[], Tree], Along, Map]:
    """By plain autograd, on one graph for all products; inside transforms by torch.func.

    NOTE [Jv by two backward passes]. J^T u is linear in u, and its derivative with respect to u along v is Jv. This
    costs 2 F for each product and no forward derivative; torch's own JVP costs 3 F.
    """
    if not plain_allowed():
        return by_forward(flat, x)
    output = tracked(flat, x)
    outputs = flatten(output)[0]
    graph = survey(x, outputs)
    if graph.compiled:
        return by_forward(flat, x)
    keep = graph.callers and torch.is_grad_enabled()
    shown = output if keep else _detached(output)

    @once
    @left_alone
    def transposed() -> tuple[list[Tensor], Sequence[End]]:
        with torch.enable_grad():
            u = [torch.ones_like(y, requires_grad=True) for y in outputs]  # also inside vmap
            return u, ends(backward(outputs, x, u, create_graph=True))

    def along(v: Leaves) -> tuple[Tree, Leaves]:
        u, slopes = transposed()
        return shown, backward(slopes, u, v, create_graph=keep)

    def pull(u: Leaves) -> Leaves:
        return backward(outputs, x, u, create_graph=keep)

    return lambda: shown, along, pull


def by_forward(flat: Flat, x: Primals) -> tuple[Callable[[], Tree], Along, Map]:
    """By forward mode, once more for each product, and by reverse mode for the transpose, on a graph made when asked.

    So no graph stands in memory during the forward mode of a single product.
    """

    @once
    def transposed() -> tuple[Tree, Map]:
        output, pull = vjp(flat, *x)
        spec = flatten(output)[1]
        return output, lambda u: pull(unflatten(u, spec))

    def along(v: Leaves) -> tuple[Tree, Leaves]:
        output, pushed = jvp(flat, x, tuple(v))
        return output, flatten(pushed)[0]

    return lambda: transposed()[0], along, lambda u: transposed()[1](u)


def _flat(func: Function, args: tuple[Tree, ...]) -> tuple[Flat, Primals]:
    return taken_apart(func, args, Options(tuple(range(len(args)))))


def _detached(tree: Tree) -> Any:
    leaves, spec = flatten(tree)
    return unflatten([leaf.detach() for leaf in leaves], spec)
