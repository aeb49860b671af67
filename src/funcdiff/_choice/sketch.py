"""What one pass of a function does, seen below autograd: enough to tell what each of its derivatives costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._flops import FORMULAS
from funcdiff._trees import Tree, flatten


@dataclass(frozen=True)
class Sketch:
    """Counts of one pass; a multiply-add is two FLOPs, as everywhere.

    Attributes:
        inputs: n, the numbers differentiated by.
        outputs: m, the numbers returned.
        flops: F, of matrix products and convolutions.
        slope: FLOPs to carry one tangent through, or one cotangent back: each product once for each operand that
            depends on the input.
        bend: FLOPs to do so through what `slope` counts: four for each product of two such operands.
        wasted: FLOPs of what torch's forward mode multiplies by the zero tangents of constants.
        elements: Numbers written by operations that depend on the input.
        calls: Those operations, views among them.
        operators: Their names, as torch's dispatcher knows them.
    """

    inputs: int
    outputs: int
    flops: int = 0
    slope: int = 0
    bend: int = 0
    wasted: int = 0
    elements: int = 0
    calls: int = 0
    operators: frozenset[str] = frozenset()


def sketch(flat: Callable[..., Tree], primals: Sequence[Tensor]) -> Sketch:
    """Run `flat` once, without gradients, and watch; `primals` are copies that may be written to."""
    with torch.no_grad(), _Tape(primals) as tape:
        outputs = flatten(flat(*primals))[0]
    return Sketch(
        sum(x.numel() for x in primals),
        sum(y.numel() for y in outputs),
        tape.flops,
        tape.slope,
        tape.bend,
        tape.wasted,
        tape.elements,
        tape.calls,
        frozenset(tape.operators),
    )


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hooks untyped
    """Sees each operation on plain tensors, and which storages depend on the input."""

    def __init__(self, primals: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.live = {_storage(x) for x in primals}
        self.flops = self.slope = self.bend = self.wasted = self.elements = self.calls = 0
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = list(_tensors(args))
        given = {_storage(x) for x in operands}
        moving = [x for x in operands if _storage(x) in self.live]
        formula = FORMULAS.get(func.overloadpacket)
        flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=result))
        self.flops += flops
        if moving:
            self.calls += 1
            self.operators.add(func.overloadpacket.__name__)
        if flops and moving:
            factors = sum(x.dim() > 1 for x in moving) or 1  # a bias is no factor
            self.slope += factors * flops
            self.bend += factors**2 * flops
            self.wasted += flops if factors == 1 else 0
        for y in _tensors((result,)):
            key = _storage(y)
            if key not in given or func._schema.is_mutable:
                (self.live.add if moving else self.live.discard)(key)
                self.elements += y.numel() if moving else 0
        return result


def _tensors(tree: Any) -> Iterator[Tensor]:
    for leaf in tree:
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, (list, tuple)):
            yield from _tensors(leaf)


def _storage(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)
