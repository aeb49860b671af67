"""What one pass of a function does, seen below autograd: enough to tell what each of its derivatives costs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._torch.constants import SET_DATA, Constants
from funcdiff._torch.delicate import delicate, finite_by_mistake
from funcdiff._torch.graph import custom_functions, once_differentiable
from funcdiff._torch.messages import BLOCKED, INFERENCE, NUMBER, RefusedError, refuse
from funcdiff._torch.norms import LAYER_NORM, LAYER_NORMS, PARTS, Extra, written_out
from funcdiff._torch.operators import BATCH_NORMS, RENAMED, Facts, arguments, draws, facts, has_closed_form, known_as
from funcdiff._torch.reading import UNSEEN, Reading, shows
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
        general: Those among them that are not linear, and no activation with a closed form.
        nested: Those among the general ones whose Taylor rule is no closed form of a scalar function.
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
        cuts: Whether it may take something out of the graph, or hang a hook on a tensor.
        opaque: Whether it reads ``.data``, or NumPy reads in it.
        blocked: What torch does not differentiate, in its words: an argument depends on the input, which must not, and
            which forward mode takes for a constant.
        extra: What its layer norms count more where they are written out; None where that is to be counted.
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
    nested: int = 0
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
    cuts: bool = field(default=True, compare=False)
    opaque: bool = False
    blocked: str = ""
    extra: Extra | None = field(default=None, compare=False)

    @property
    def straight(self) -> bool:
        """Whether it is linear piece by piece, so that its second derivatives are zero."""
        return not (self.curved_elements or self.foreign or self.cuts or self.draws or self.reads_values)

    @property
    def with_layer_norms_written_out(self) -> Sketch | None:
        """The sketch as if each layer norm were the simpler operations that it consists of, if that is known."""
        if self.extra is None:
            return None
        counts = {name: getattr(self, name) + more for name, more in self.extra._asdict().items()}
        operators = self.operators - {LAYER_NORM} | PARTS
        return dataclasses.replace(self, **counts, operators=operators, delicate=True)


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
            cuts, blocked = tape.switches.any, ""
    except RefusedError:
        raise
    except RuntimeError as error:  # flat holds a tensor that belongs to one of them, or writes into its argument
        blocked = str(error).partition(". ")[0] if BLOCKED in str(error) else ""
        tape, outputs, reads = _watch(flat, primals, randomness)
        cuts = True
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
        cuts=cuts,
        opaque=tape.switches.opaque,
        blocked=blocked,
        extra=tape.extra(),
        reads_values=reads,
        on_gpu=any(x.is_cuda for x in primals),
    )


def _watch(flat: Callable[..., Tree], primals: Sequence[Tensor], randomness: str) -> tuple[_Tape, Sequence[Any], bool]:
    read = Reading()
    tape = _Tape(primals, randomness, switches := _Watch(read), read)
    switches.made = tape.made
    with undrawn(), switches, tape:
        outputs = flatten(flat(*primals))[0]
    return tape, outputs, read.seen


_COUNTS = (
    *("flops", "jvp_flops", "second_flops", "curved", "wasted"),
    *("elements", "curved_elements", "calls", "general", "nested"),
)


class _Watch(Constants):
    """Sees what a function takes out of the graph, and what it reads or writes where the dispatcher does not see it.

    Attributes:
        made: The storages that the caller cannot see.
    """

    made: set[int]

    def __init__(self, read: Reading) -> None:
        super().__init__()
        self.read = read
        self.layer_norms = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read.seen |= func in UNSEEN
        self.layer_norms += func in LAYER_NORMS
        if func == SET_DATA and _storage(args[0]) not in self.made:  # as torch.nn.utils.vector_to_parameters does
            refuse("would mutate a captured Tensor")
        return super().__torch_function__(func, types, args, kwargs)


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
    nested: int

    def __init__(self, primals: Sequence[Tensor], randomness: str, switches: _Watch, read: Reading) -> None:
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
        self.layer_norms: list[Extra | None] = []
        self._sparse: list[Tensor] = []  # kept, so that no other tensor takes their place
        for name in _COUNTS:
            setattr(self, name, 0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # whoever sketches has told the compiler to stay away, and to tell it at each operation takes long

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inference = torch.is_inference_mode_enabled() and not self.inference
        if func is torch.ops.aten.detach.default and not inference:  # mostly autograd's own, of what it saves
            return materialised(func(*args))
        operands = _tensors((*args, *kwargs.values()) if kwargs else args)
        keys = [self._key(x) for x in operands]
        live, given = self.live, set(keys)
        moving = [x for x, key in zip(operands, keys, strict=True) if key in live]
        if 0 < len(moving) < len(operands) and not self.trainable:
            self.trainable = any(x.requires_grad for x, key in zip(operands, keys, strict=True) if key not in live)
        if isinstance(func, HigherOrderOperator):
            return self._see_foreign(func._name, func(*args, **kwargs), bool(moving))
        known = facts(func)
        name = known_as(func, args, kwargs) if known.name in RENAMED else known.name
        if known.shows:
            self.read.seen |= shows(func, args)
        if inference and any(x.requires_grad for x in moving):
            raise RefusedError(INFERENCE)
        self._refuse(func, known, args, kwargs, given, moving)
        result = materialised(with_number(func, args, kwargs) if known.numbered else func(*args, **kwargs))
        if not known.own:
            return self._see_foreign(f"{func.namespace}.{name}", result, bool(moving))
        flops = 0 if known.formula is None else int(known.formula(*args, **kwargs, out_val=result))
        self.flops += flops
        results = [result] if isinstance(result, Tensor) else _tensors((result,))
        moved = [y for y in results if y.is_floating_point() or y.is_complex()] if moving else []
        bends = not (known.adds or (known.linear and len(moving) == 1 and (name != "div" or moving[0] is operands[0])))
        bent = bool(moved) and (bends or not self.bent.isdisjoint(map(self._key, moving)))
        if moved:
            off = self.switches.off and not torch.is_grad_enabled()
            self.gradless |= off and any(x.requires_grad for x in moving)
            self.calls += 1
            if name == LAYER_NORM:
                curved = not self.bent.isdisjoint(map(self._key, moving))
                self.layer_norms.append(written_out(args, moving, curved=curved))
            self.general += bends and not known.by_hand
            self.nested += bends and not has_closed_form(known, args)
            self.operators.update(filter(None, (name, finite_by_mistake(name, args))))
            self.delicate |= delicate(name, args, moving)
            self.dtypes.update(y.dtype for y in moved)
        if flops and moving:
            factors = sum(x.dim() > 1 for x in moving) or 1  # a bias is no factor
            self.jvp_flops += factors * flops
            self.second_flops += factors**2 * flops
            self.wasted += flops if factors == 1 else 0
            self.curved += factors**2 * flops if factors > 1 or bent else 0
        written = 0
        for y in results:
            key = self._key(y)
            if key not in given or known.writes:
                (live.add if moved else live.discard)(key)
                (self.bent.add if bent else self.bent.discard)(key)
                self.made.add(key)
                written += y.numel() if y.is_floating_point() or y.is_complex() else 0
        if moved:
            self.elements += written
            # Second derivatives are carried for each number that enters a norm or a loss, not for the one that leaves.
            entering = bends and known.formula is None and not known.selects
            widest = max(x.numel() for x in moving) if entering else 0
            self.curved_elements += max(written, widest) if bent else 0
        return result

    def extra(self) -> Extra | None:
        """What the layer norms count more where they are written out, if they are, and nothing differentiates them."""
        seen = [extra for extra in self.layer_norms if extra]
        if len(seen) != self.switches.layer_norms or len(seen) != len(self.layer_norms):
            return None
        return None if f"{LAYER_NORM}_backward" in self.operators else functools.reduce(Extra.plus, seen, Extra())

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
                self.nested += 1
        return result

    def _refuse(
        self, func: Any, known: Facts, args: Any, kwargs: Any, given: set[int], moving: Sequence[Tensor]
    ) -> None:
        """Stop, in torch's words for it, before what has no derivative of its own or changes what is the caller's."""
        # A number of what was detached is a constant by intent.
        if known.name == "_local_scalar_dense" and any(x.requires_grad or not self.graph for x in moving):
            raise RefusedError(NUMBER)
        if known.seeded and draws(func, args, kwargs):
            self.draws = True
            if self.randomness == "error":
                refuse("random operation while in randomness error mode")
        if known.writes and not given <= self.made:
            written = arguments(func, args, kwargs, lambda a: a.is_write)
            if any(self._key(x) not in self.made for x in _tensors(written)):
                refuse("would mutate a captured Tensor")
        # Its schema does not say that it writes the running statistics.
        statistics = args[3:5] if known.name in BATCH_NORMS and args[5] else ()
        if any(self._key(x) not in self.made for x in statistics if x is not None):
            refuse("would mutate a captured Tensor")

    def _key(self, x: Tensor) -> int:
        if x.layout is torch.strided:
            return _storage(x)
        self._sparse.append(x)
        return id(x)


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for leaf in tree:
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, (list, tuple)):
            found += _tensors(leaf)
    return found


def _storage(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)
