"""A function linearized at a point: the maps v -> Jv and u -> J^T u, without the Jacobian."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.operator import Leaves, Map, Maps, Operator, Space
from funcdiff._calling.options import Options
from funcdiff._calling.plain import backward, tracked
from funcdiff._calling.point import check_primals
from funcdiff._calling.transform import guarded, taken_apart
from funcdiff._calling.types import Flat, Function, Primals
from funcdiff._torch.graph import survey
from funcdiff._torch.transforms import jvp, plain_allowed, vjp
from funcdiff._torch.trees import Tree, flatten, unflatten


@dataclass(frozen=True)
class Linearized:
    """What `func` returns at a point, and its Jacobian there as two maps of leaves."""

    output: Tree
    push: Map  # v -> Jv
    pull: Map  # u -> J^T u
    inputs: Space

    @property
    def jacobian(self) -> Operator:
        """The two maps as an operator."""
        return Operator(Maps.of(self.push, self.pull), self.inputs, Space.of((self.output,)))


Formula = Callable[[Flat, Primals], tuple[Tree, Map, Map]]


def linearized(formula: Formula, func: Function, primals: tuple[Tree, ...]) -> Linearized:
    """`func` at the primals, which are copied, linearized by one of the formulas below."""
    check_primals(primals)
    space = Space.of(primals)

    def run(*copies: Tree) -> tuple[Tree, Map, Map]:
        flat, x = taken_apart(func, copies, Options(tuple(range(len(copies)))))
        return formula(flat, x)

    output, push, pull = guarded(run, primals)
    return Linearized(output, push, pull, space)


def by_double_backward(flat: Flat, x: Primals) -> tuple[Tree, Map, Map]:
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

    @functools.cache
    def transposed() -> tuple[list[Tensor], Sequence[Tensor]]:
        with torch.enable_grad():
            u = [torch.ones_like(y).requires_grad_() for y in outputs]
            return u, backward(outputs, x, u, create_graph=True)

    def push(v: Leaves) -> Leaves:
        u, slopes = transposed()
        return backward(slopes, u, v, create_graph=keep)

    def pull(u: Leaves) -> Leaves:
        return backward(outputs, x, u, create_graph=keep)

    return output if keep else _detached(output), push, pull


def by_forward(flat: Flat, x: Primals) -> tuple[Tree, Map, Map]:
    """By forward mode, once more for each product, and by reverse mode for the transpose."""
    output, pull = vjp(flat, *x)
    spec = flatten(output)[1]

    def push(v: Leaves) -> Leaves:
        return flatten(jvp(flat, x, tuple(v))[1])[0]

    return output, push, lambda u: pull(unflatten(u, spec))


def _detached(tree: Tree) -> Any:
    leaves, spec = flatten(tree)
    return unflatten([leaf.detach() for leaf in leaves], spec)
