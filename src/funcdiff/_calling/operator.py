"""A linear map between trees of tensors, as recipes return it and as SciPy's solvers accept it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from funcdiff._calling.point import check_primals, check_tangents, whole
from funcdiff._calling.types import Primals
from funcdiff._torch.messages import cannot
from funcdiff._torch.transforms import batched, plain_allowed
from funcdiff._torch.trees import Tree, TreeSpec

Leaves = Sequence[Tensor]
Map = Callable[[Leaves], Leaves]
ONCE = ContextVar("once", default=False)  # whether the operators made now are multiplied once each, as in a pass


@dataclass(frozen=True)
class Space:
    """Trees like the arguments of a function, and the same as flat vectors."""

    like: Primals
    spec: TreeSpec

    @classmethod
    def of(cls, args: tuple[Tree, ...]) -> Space:
        """The space that these arguments are from."""
        leaves, spec = check_primals(args)
        return cls(tuple(leaf.detach() for leaf in leaves), spec)

    @property
    def size(self) -> int:
        return sum(leaf.numel() for leaf in self.like)

    def split(self, rows: Tensor) -> list[Tensor]:
        """Flat vectors (k, size) as stacks (k, ...) of leaves."""
        parts = torch.split(rows, [leaf.numel() for leaf in self.like], 1)
        return [
            part.reshape(len(rows), *leaf.shape).to(leaf.dtype) for part, leaf in zip(parts, self.like, strict=True)
        ]

    def join(self, stacks: Leaves) -> Tensor:
        """Stacks (k, ...) of leaves as flat vectors (k, size)."""
        return torch.cat([x.reshape(x.shape[0], leaf.numel()) for x, leaf in zip(stacks, self.like, strict=True)], 1)


class Maps(NamedTuple):
    """A linear map and its transpose, of leaves and of many vectors at once, stacks (k, ...) of leaves."""

    apply: Map
    adjoint: Map
    apply_many: Map
    adjoint_many: Map

    @classmethod
    def of(cls, apply: Map, adjoint: Map) -> Maps:
        """With vmap for many vectors."""
        return cls(apply, adjoint, _each(apply), _each(adjoint))

    @property
    def transposed(self) -> Maps:
        return Maps(self.adjoint, self.apply, self.adjoint_many, self.apply_many)

    def after(self, first: Maps) -> Maps:
        """The operator of the product of both."""
        return Maps(
            _chained(self.apply, first.apply),
            _chained(first.adjoint, self.adjoint),
            _chained(self.apply_many, first.apply_many),
            _chained(first.adjoint_many, self.adjoint_many),
        )


class Operator:
    """A matrix that is known only by its products with vectors.

    `hvp_operator`, `jacobian_operator`, `gauss_newton_operator`, `fisher_operator` and `over_batches` return operators.
    An operator A of shape (m, n) has these products:

    * ``A(v)`` takes one vector for each argument of the function, with its shape. The result has the shape of the
      output.
    * ``A @ V`` takes a flat vector of shape (n,), or k vectors as the columns of a matrix of shape (n, k). The numbers
      are in the order of `ravel`.
    * ``A.T(u)`` and ``A.T @ U`` multiply by the transpose.

    ``2 * A``, ``A / 2``, ``A @ B`` and ``A.damped(0.1)``, which is A + 0.1 I, are operators again. SciPy's solvers
    accept an operator: ``scipy.sparse.linalg.lsqr(A, b)``.

    Example:
        The Jacobian of the square at (1, 2) is diagonal.

        >>> import torch
        >>> from funcdiff import jacobian_operator
        >>> operator = jacobian_operator(torch.square, torch.tensor([1.0, 2.0]))
        >>> operator.shape
        (2, 2)
        >>> operator @ torch.eye(2)
        tensor([[2., 0.],
                [0., 4.]])
        >>> operator.damped(0.5) @ torch.tensor([1.0, 1.0])
        tensor([2.5000, 4.5000])
    """

    def __init__(self, maps: Maps, inputs: Space, outputs: Space) -> None:
        """Make an operator from its products with lists of tensors, and the shapes of its inputs and outputs."""
        self.maps, self.inputs, self.outputs = maps, inputs, outputs

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and of columns."""
        return self.outputs.size, self.inputs.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the products, as NumPy's dtype."""
        return torch.empty(0, dtype=self.inputs.like[0].dtype, device="cpu").numpy().dtype

    @property
    def T(self) -> Operator:  # noqa: N802  # as torch, NumPy and SciPy spell it
        """The transposed operator."""
        return Operator(self.maps.transposed, self.outputs, self.inputs)

    def __call__(self, *tangents: Tree) -> Tree:
        """Multiply by a vector: one tensor or pytree for each argument."""
        leaves = check_tangents(tangents, self.inputs.like, self.inputs.spec)
        return whole(self.maps.apply(leaves), self.outputs.spec)

    @overload
    def __matmul__(self, other: Operator) -> Operator: ...

    @overload
    def __matmul__(self, other: Any) -> Any: ...

    def __matmul__(self, other: Any) -> Any:
        """Multiply by flat vectors, a tensor or a NumPy array, or by another operator."""
        if isinstance(other, Operator):
            return self.after(other)
        if not isinstance(other, Tensor):
            first = self.inputs.like[0]
            vectors = torch.tensor(np.asarray(other), dtype=first.dtype, device=first.device)
            return (self @ vectors).detach().cpu().numpy()
        size = self.inputs.size
        if other.dim() not in (1, 2) or other.shape[0] != size:
            raise ValueError(f"expected vectors of shape ({size},) or ({size}, k), got {tuple(other.shape)}")
        rows = other[None] if other.dim() == 1 else other.mT
        if not len(rows):
            return other.new_zeros(self.shape[0], 0)
        stacks = self.inputs.split(rows)
        if len(rows) == 1:  # without vmap
            products = self.outputs.join([leaf[None] for leaf in self.maps.apply([leaf[0] for leaf in stacks])])
        else:
            products = self.outputs.join(self.maps.apply_many(stacks))
        return products[0] if other.dim() == 1 else products.mT

    def after(self, first: Operator) -> Operator:
        """The product ``self @ first``, also for torch.compile, which does not support ``@`` of classes."""
        if self.shape[1] != first.shape[0]:
            raise ValueError(f"expected {self.shape[1]} rows in the operator on the right of @, got {first.shape[0]}")
        return Operator(self.maps.after(first.maps), first.inputs, self.outputs)

    matvec = matmat = __matmul__  # the names that SciPy looks for

    def rmatvec(self, other: Any) -> Any:
        """Multiply by the transpose; the name that SciPy looks for."""
        return self.T @ other

    rmatmat = rmatvec

    def __mul__(self, factor: float) -> Operator:
        """The operator times a number."""

        def scaled(f: Map) -> Map:
            return lambda leaves: [factor * leaf for leaf in f(leaves)]

        return Operator(Maps(*map(scaled, self.maps)), self.inputs, self.outputs)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Operator:
        """The operator over a number."""
        return self * (1 / divisor)

    def damped(self, damping: float) -> Operator:
        """The operator plus `damping` times the identity, as for a damped Newton step."""
        if [x.shape for x in self.inputs.like] != [y.shape for y in self.outputs.like]:
            raise ValueError(f"expected an operator whose inputs and outputs have the same shapes, got {self.shape}")

        def shifted(f: Map) -> Map:
            return lambda leaves: [torch.add(y, x, alpha=damping) for x, y in zip(leaves, f(leaves), strict=True)]

        return Operator(Maps(*map(shifted, self.maps)), self.inputs, self.outputs)

    def __repr__(self) -> str:
        kind = str(self.inputs.like[0].dtype).removeprefix("torch.")  # not `dtype`: NumPy has no bfloat16
        return f"Operator(shape={self.shape}, dtype={kind})"


def _chained(f: Map, g: Map) -> Map:
    return lambda leaves: f(g(leaves))


def symmetric(apply: Map, space: Space) -> Operator:
    """An operator that is its own transpose."""
    return Operator(Maps.of(apply, apply), space, space)


def _each(f: Map) -> Map:
    """A map of leaves as one of stacks: under vmap, or one after the other where torch cannot."""

    def run(stacks: Leaves) -> Leaves:
        try:
            return batched(lambda *leaves: f(leaves), "same")(*stacks)
        except Exception as error:  # raised again unless vmap is what torch cannot do
            if not (cannot(error) and plain_allowed()):
                raise
        results = [f([x[i] for x in stacks]) for i in range(len(stacks[0]))]
        return [torch.stack(some) for some in zip(*results, strict=True)]

    return run
