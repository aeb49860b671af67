"""What one pass of a function does, seen below autograd: enough to tell what each of its derivatives costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._torch.constants import Switches
from funcdiff._torch.delicate import delicate, finite_by_mistake
from funcdiff._torch.flops import FORMULAS
from funcdiff._torch.graph import custom_functions, once_differentiable
from funcdiff._torch.messages import INFERENCE, NUMBER, RefusedError, refuse
from funcdiff._torch.reading import Reading, shows
from funcdiff._torch.tensors import materialised, with_number
from funcdiff._torch.transforms import outside, undrawn
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
        foreign: What computes with the input and is not an operator of torch's own: custom operators and custom
            autograd functions, by name. What torch derives for them may be anything.
        once: Whether one of them is marked as differentiable once only.
        epsilon: The machine epsilon of the coarsest numbers in which the function computes.
        gradless: Whether it switches gradients off to compute with its input, which forward mode ignores.
        draws: Whether it draws random numbers.
        trainable: Whether it computes with tensors that it captured and that require a gradient.
        reads_values: Whether values of tensors were read, so that the next pass may do something else.
        on_gpu: Whether the input is on a GPU.
        delicate: Whether a derivative may not be finite although the value is.
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
    foreign: frozenset[str] = frozenset()
    once: bool = False
    epsilon: float = field(default=0.0, compare=False)
    gradless: bool = False
    draws: bool = False
    trainable: bool = False
    reads_values: bool = False
    on_gpu: bool = False
    delicate: bool = field(default=False, compare=False)


def sketch(flat: Callable[..., Tree], primals: Sequence[Tensor], randomness: str = "error") -> Sketch:
    """Run `flat` once, as a caller would who differentiates the result, and watch; `primals` may be written to.

    Raises:
        RuntimeError: `flat` makes a Python number of a tensor that depends on its input, draws random numbers where
            `randomness` is "error", or writes into a tensor of the caller's.
    """
    try:
        # Not seen through the transforms around, which take operations apart differently: the plan is to be the same.
        with outside():
            tape, outputs, reads = _watch(flat, [x.clone().requires_grad_() for x in primals], randomness)
    except RefusedError:
        raise
    except RuntimeError:  # flat holds a tensor that belongs to one of them, or writes into its argument
        tape, outputs, reads = _watch(flat, primals, randomness)
    counts = {name: getattr(tape, name) for name in _COUNTS}
    sizes = sum(x.numel() for x in primals), sum(y.numel() for y in outputs)
    return Sketch(
        *sizes,
        **counts,
        operators=frozenset(tape.operators),
        foreign=custom_functions(outputs) | tape.foreign,
        once=once_differentiable(outputs),
        epsilon=max(torch.finfo(dtype).eps for dtype in tape.dtypes),
        gradless=tape.gradless,
        draws=tape.draws,
        trainable=tape.trainable,
        delicate=tape.delicate,
        reads_values=reads,
        on_gpu=any(x.is_cuda for x in primals),
    )


def _watch(flat: Callable[..., Tree], primals: Sequence[Tensor], randomness: str) -> tuple[_Tape, Sequence[Any], bool]:
    tape = _Tape(primals, randomness, switches := Switches(), read := Reading())
    with undrawn(), read, switches, tape:
        outputs = flatten(flat(*primals))[0]
    return tape, outputs, read.seen


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
)
_SUMS = ("add", "sub", "neg", "cat", "stack", "sum", "mean")
_PRODUCTS = ("mul", "div", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution")
_PIECEWISE = ("relu", "threshold", "leaky_relu", "hardtanh", "abs")
# Those with closed forms in `_jets.activations`.
_BY_HAND = frozenset(("tanh", "sigmoid", "silu", "gelu", "elu", "softplus", "sin", "cos", "exp"))
_BATCH_NORMS = "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"
_NAMESPACES = frozenset(("aten", "prims", "prim", "quantized", "mkldnn"))
_LINEAR = frozenset((*_LAYOUTS, *_COPIES, *_SUMS, *_PRODUCTS, *_PIECEWISE))


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hooks untyped
    """Sees each operation on plain tensors, and which storages depend on the input."""

    supports_higher_order_operators = True  # those that do not run as Python arrive whole

    flops: int
    jvp_flops: int
    second_flops: int
    curved: int
    wasted: int
    elements: int
    curved_elements: int
    calls: int
    general: int

    def __init__(self, primals: Sequence[Tensor], randomness: str, switches: Switches, read: Reading) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.live = {_storage(x) for x in primals}
        self.made = set(self.live)  # storages that the caller cannot see
        self.randomness = randomness
        self.switches = switches
        self.read = read
        self.graph = any(x.requires_grad for x in primals)
        self.bent: set[int] = set()  # of the live storages, those with second derivatives
        self.operators: set[str] = set()
        self.foreign: set[str] = set()
        self.dtypes = {x.dtype for x in primals}  # in which live numbers are kept
        self.gradless = False
        self.draws = False
        self.trainable = False
        self.delicate = False
        self.inference = torch.is_inference_mode_enabled()  # already, by the caller
        self._sparse: list[Tensor] = []  # kept, so that no other tensor takes their place
        for name in _COUNTS:
            setattr(self, name, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.read.seen |= shows(func, args)
        operands = list(_tensors((*args, *kwargs.values())))
        keys = [self._key(x) for x in operands]
        given = set(keys)
        moving = [x for x, key in zip(operands, keys, strict=True) if key in self.live]
        still = [x for x, key in zip(operands, keys, strict=True) if key not in self.live]
        self.trainable |= bool(moving) and any(x.requires_grad for x in still)
        if isinstance(func, HigherOrderOperator):
            return self._see_foreign(func._name, func(*args, **kwargs), bool(moving))
        name = known_as(func, args, kwargs)
        self._refuse(func, name, args, kwargs, given, moving)
        result = materialised(with_number(func, args, kwargs))
        if func.namespace not in _NAMESPACES:
            return self._see_foreign(f"{func.namespace}.{name}", result, bool(moving))
        if name == "detach":  # mostly autograd's own, of what it saves
            return result
        formula = FORMULAS.get(func.overloadpacket)
        flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=result))
        self.flops += flops
        moved = [y for y in _tensors((result,)) if y.is_floating_point() or y.is_complex()] if moving else []
        bends = not (
            name in _SUMS or (name in _LINEAR and len(moving) == 1 and (name != "div" or moving[0] is operands[0]))
        )
        bent = bends or any(self._key(x) in self.bent for x in moving)
        if moved:
            off = self.switches.off and not torch.is_grad_enabled()
            self.gradless |= off and any(x.requires_grad for x in moving)
            self.calls += 1
            self.general += bends and name not in _BY_HAND
            self.operators.update(filter(None, (name, finite_by_mistake(name, args))))
            self.delicate |= delicate(name, args, moving)
            self.dtypes.update(y.dtype for y in moved)
        if flops and moving:
            factors = sum(x.dim() > 1 for x in moving) or 1  # a bias is no factor
            self.jvp_flops += factors * flops
            self.second_flops += factors**2 * flops
            self.wasted += flops if factors == 1 else 0
            self.curved += factors**2 * flops if factors > 1 or bent else 0
        for y in _tensors((result,)):
            key = self._key(y)
            if key not in given or func._schema.is_mutable:
                (self.live.add if moved else self.live.discard)(key)
                (self.bent.add if moved and bent else self.bent.discard)(key)
                self.made.add(key)
        written = sum(y.numel() for y in moved if self._key(y) not in given or func._schema.is_mutable)
        self.elements += written
        self.curved_elements += written if bent else 0
        return result

    def _see_foreign(self, name: str, result: Any, moving: bool) -> Any:
        """Count nothing of what is not torch's own: it is only known that its results depend on the input."""
        for y in _tensors((result,)):
            self.made.add(self._key(y))
            if moving:
                self.live.add(self._key(y))
                self.bent.add(self._key(y))
                self.foreign.add(name)
                self.calls += 1
                self.general += 1
        return result

    def _refuse(self, func: Any, name: str, args: Any, kwargs: Any, given: set[int], moving: Sequence[Tensor]) -> None:
        """Stop, in torch's words for it, before what has no derivative of its own or changes what is the caller's."""
        if torch.is_inference_mode_enabled() and not self.inference and any(x.requires_grad for x in moving):
            raise RefusedError(INFERENCE)
        # A number of what was detached is a constant by intent.
        if name == "_local_scalar_dense" and any(x.requires_grad or not self.graph for x in moving):
            raise RefusedError(NUMBER)
        if torch.Tag.nondeterministic_seeded in func.tags and draws(func, args, kwargs):
            self.draws = True
            if self.randomness == "error":
                refuse("random operation while in randomness error mode")
        if func._schema.is_mutable and not given <= self.made:
            written = arguments(func, args, kwargs, lambda a: a.is_write)
            if any(self._key(x) not in self.made for x in _tensors(written)):
                refuse("would mutate a captured Tensor")
        # Its schema does not say that it writes the running statistics.
        statistics = args[3:5] if name in _BATCH_NORMS and args[5] else ()
        if any(self._key(x) not in self.made for x in statistics if x is not None):
            refuse("would mutate a captured Tensor")

    def _key(self, x: Tensor) -> int:
        if x.layout is torch.strided:
            return _storage(x)
        self._sparse.append(x)
        return id(x)


def known_as(func: Any, args: Sequence[Any], kwargs: Any) -> str:
    """The name by which an operator is blamed: an embedding that treats all its rows alike is a selection of rows."""
    name = str(func.overloadpacket.__name__)
    if name == "embedding":
        padding, scaled = arguments(func, args, kwargs, lambda a: a.name in ("padding_idx", "scale_grad_by_freq"))
        return name if padding >= 0 or scaled else "index_select"
    return name


def draws(func: Any, args: Sequence[Any], kwargs: Any) -> bool:
    """Whether an operation that may draw random numbers does: not in evaluation, nor with a probability of zero."""
    switches = {"training", "train", "p", "dropout_p", "dropout"}
    return all(arguments(func, args, kwargs, lambda a: a.name in switches))


def arguments(func: Any, args: Sequence[Any], kwargs: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """The arguments, defaults included, that are `wanted` by what the operator's schema says of them."""
    named = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    return [named.get(a.name, a.default_value) for a in func._schema.arguments if wanted(a)]


def _tensors(tree: Any) -> Iterator[Tensor]:
    for leaf in tree:
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, (list, tuple)):
            yield from _tensors(leaf)


def _storage(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)
