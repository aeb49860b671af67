"""What one pass of a function does, seen below autograd: enough to tell what each of its derivatives costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._torch.flops import FORMULAS
from funcdiff._torch.messages import RefusedError, refuse
from funcdiff._torch.transforms import undrawn
from funcdiff._torch.trees import Tree, flatten


@dataclass(frozen=True)
class Sketch:
    """Counts of one pass; a multiply-add is two FLOPs, as everywhere.

    Attributes:
        inputs: n, the numbers differentiated by.
        outputs: m, the numbers returned.
        flops: F, of matrix products and convolutions.
        jvp_flops: FLOPs to carry one tangent through, or one cotangent back: each product once for each operand that
            depends on the input.
        second_flops: FLOPs to do so through what `jvp_flops` counts: four times those of a product of two of them.
        curved: The part of `second_flops` whose operands have second derivatives.
        wasted: FLOPs of what torch's forward mode multiplies by the zero tangents of constants.
        elements: Numbers written by operations that depend on the input.
        curved_elements: Those among them that have second derivatives.
        calls: Those operations, views among them.
        general: Those among them that are not linear, and whose Taylor rule is the general one.
        operators: Their names, as torch's dispatcher knows them.
    """

    inputs: int
    outputs: int
    flops: int = 0
    jvp_flops: int = 0
    second_flops: int = 0
    curved: int = 0
    wasted: int = 0
    elements: int = 0
    curved_elements: int = 0
    calls: int = 0
    general: int = 0
    operators: frozenset[str] = frozenset()


def sketch(flat: Callable[..., Tree], primals: Sequence[Tensor], randomness: str = "error") -> Sketch:
    """Run `flat` once, without gradients, and watch; `primals` are copies that may be written to.

    Raises:
        RuntimeError: `flat` makes a Python number of a tensor that depends on its input, draws random numbers where
            `randomness` is "error", or writes into a tensor of the caller's.
    """
    try:
        # Not seen through the transforms around, which take operations apart differently: the plan is to be the same.
        with temporarily_clear_interpreter_stack():
            tape, outputs = _watch(flat, [x.clone() for x in primals], randomness)
    except RefusedError:
        raise
    except RuntimeError:  # flat holds a tensor that belongs to one of them
        tape, outputs = _watch(flat, primals, randomness)
    counts = {name: getattr(tape, name) for name in _COUNTS}
    sizes = sum(x.numel() for x in primals), sum(y.numel() for y in outputs)
    return Sketch(*sizes, **counts, operators=frozenset(tape.operators))


def _watch(flat: Callable[..., Tree], primals: Sequence[Tensor], randomness: str) -> tuple[_Tape, Sequence[Any]]:
    with torch.no_grad(), undrawn(), _Tape(primals, randomness) as tape:
        return tape, flatten(flat(*primals))[0]


_COUNTS = ("flops", "jvp_flops", "second_flops", "curved", "wasted", "elements", "curved_elements", "calls", "general")
# Of one operand that depends on the input these are linear, at least piecewise; of two, the sums among them.
_LAYOUTS = ("t", "view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "slice", "select", "squeeze")
_COPIES = (
    "unsqueeze",
    "unbind",
    "split",
    "split_with_sizes",
    "index",
    "gather",
    "clone",
    "alias",
    "_to_copy",
    "detach",
)
_SUMS = ("add", "sub", "neg", "cat", "stack", "sum", "mean")
_PRODUCTS = ("mul", "div", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution")
_PIECEWISE = ("relu", "threshold", "leaky_relu", "hardtanh", "abs")
# Those of `_taylor.scalars`.
_BY_HAND = frozenset(("tanh", "sigmoid", "silu", "gelu", "elu", "softplus", "sin", "cos", "exp"))
_LINEAR = frozenset((*_LAYOUTS, *_COPIES, *_SUMS, *_PRODUCTS, *_PIECEWISE))


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hooks untyped
    """Sees each operation on plain tensors, and which storages depend on the input."""

    flops: int
    jvp_flops: int
    second_flops: int
    curved: int
    wasted: int
    elements: int
    curved_elements: int
    calls: int
    general: int

    def __init__(self, primals: Sequence[Tensor], randomness: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.live = {_storage(x) for x in primals}
        self.made = set(self.live)  # storages that the caller cannot see
        self.randomness = randomness
        self.bent: set[int] = set()  # of the live storages, those with second derivatives
        for name in _COUNTS:
            setattr(self, name, 0)
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = list(_tensors(args))
        given = {_storage(x) for x in operands}
        moving = [x for x in operands if _storage(x) in self.live]
        name = func.overloadpacket.__name__
        self._refuse(func, name, args, given, bool(moving))
        result = func(*args, **kwargs)
        formula = FORMULAS.get(func.overloadpacket)
        flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=result))
        self.flops += flops
        moved = [y for y in _tensors((result,)) if y.is_floating_point() or y.is_complex()] if moving else []
        bends = not (
            name in _SUMS or (name in _LINEAR and len(moving) == 1 and (name != "div" or moving[0] is operands[0]))
        )
        bent = bends or any(_storage(x) in self.bent for x in moving)
        if moved:
            self.calls += 1
            self.general += bends and name not in _BY_HAND
            self.operators.add(name)
        if flops and moving:
            factors = sum(x.dim() > 1 for x in moving) or 1  # a bias is no factor
            self.jvp_flops += factors * flops
            self.second_flops += factors**2 * flops
            self.wasted += flops if factors == 1 else 0
            self.curved += factors**2 * flops if factors > 1 or bent else 0
        for y in _tensors((result,)):
            key = _storage(y)
            if key not in given or func._schema.is_mutable:
                (self.live.add if moved else self.live.discard)(key)
                (self.bent.add if moved and bent else self.bent.discard)(key)
                self.made.add(key)
        written = sum(y.numel() for y in moved if _storage(y) not in given or func._schema.is_mutable)
        self.elements += written
        self.curved_elements += written if bent else 0
        return result

    def _refuse(self, func: Any, name: str, args: Any, given: set[int], moving: bool) -> None:
        """Stop, in torch's words for it, before what has no derivative of its own or changes what is the caller's."""
        if name == "_local_scalar_dense" and moving:
            refuse("calling .item() on a Tensor")
        if self.randomness == "error" and torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args):
            refuse("random operation while in randomness error mode")
        if func._schema.is_mutable and not given <= self.made:
            written = [x for x, a in zip(args, func._schema.arguments, strict=False) if a.is_write]
            if any(_storage(x) not in self.made for x in _tensors(written)):
                refuse("would mutate a captured Tensor")
        if name == "native_batch_norm" and args[5] and args[3] is not None:  # its schema does not say that it writes
            refuse("would mutate a captured Tensor")


def _draws(func: Any, args: Sequence[Any]) -> bool:
    """Whether an operation that may draw random numbers does: fused attention without dropout does not."""
    given = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)}
    if "rrelu" in func._schema.name:
        return bool(given.get("training", False))
    return "scaled_dot_product" not in func._schema.name or bool(given.get("dropout_p", 0.0))


def _tensors(tree: Any) -> Iterator[Tensor]:
    for leaf in tree:
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, (list, tuple)):
            yield from _tensors(leaf)


def _storage(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)
