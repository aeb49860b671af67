"""What the derivative atlas covers: torch's own databases of operators and of modules, with their samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from _tools.atlas.blame import operators_in
from funcdiff._safety.culprits import Operation
from funcdiff._safety.vector_function import VectorFunction

_LARGEST = 1000  # numbers in a sample
# torch computes these to seven digits, even in float64: differences of such values judge no derivative.
INEXACT = {f"special.bessel_{name}" for name in ("j0", "j1", "y0", "y1")}


@dataclass(frozen=True, eq=False)
class Sample:
    """A function and a point: `func(*primals)`; `call`, where it is one, the operator of input, args and kwargs."""

    func: Callable[..., Any]
    primals: tuple[Any, ...]
    call: Callable[..., Any] | None = None

    @property
    def size(self) -> int:
        """How many numbers can be moved."""
        return sum(self.leaves[i].numel() for i in self.moving)

    @property
    def leaves(self) -> list[Any]:
        """What the primals hold."""
        return tree_leaves(self.primals)

    @property
    def moving(self) -> list[int]:
        """Which leaves can be moved."""
        return [i for i, x in enumerate(self.leaves) if isinstance(x, Tensor) and x.is_floating_point()]

    def subject(self, directions: int) -> VectorFunction:
        """As a function of one vector, without the results torch declares to have no derivative."""
        return VectorFunction(_differentiable(self.func), self.primals, directions, seed=0)

    def operation(self, directions: int) -> Operation:
        """The operator's call, its tensors moved at random."""
        first, args, kwargs = self.primals
        leaves, tree = tree_flatten(((first, *args), kwargs))
        generator = torch.Generator().manual_seed(0)
        tangents = {
            i: torch.randn(directions, *x.shape, generator=generator, dtype=torch.float64)
            for i, x in enumerate(leaves)
            if isinstance(x, Tensor) and x.is_floating_point()
        }
        return Operation(self.call, leaves, tree, tangents)

    def first_alone(self) -> Sample:
        """The same with only the first tensor moving, itself where there is no other."""
        if len(self.moving) < 2:
            return self
        leaves, tree = tree_flatten(self.primals)
        first = self.moving[0]

        def func(x: Tensor) -> Any:
            return self.func(*tree_unflatten([*leaves[:first], x, *leaves[first + 1 :]], tree))

        return Sample(func, (leaves[first],))


Key = tuple[str, str]  # "operator" or "layer", and the name


@functools.cache
def cases() -> dict[Key, Callable[[], Iterator[Sample]]]:
    """Everything in torch's databases that takes float64, with what draws its samples."""
    found: dict[Key, Callable[[], Iterator[Sample]]] = {}
    for op in op_db:
        if op.supports_autograd and torch.float64 in op.dtypes:
            found["operator", op.full_name] = partial(operator_samples, op)
    for info in module_db:
        for training in (True, False) if info.train_and_eval_differ else (True,):
            found["layer", info.name + " (eval)" * (not training)] = partial(layer_samples, info, training)
    return found


def samples(key: Key) -> list[Sample]:
    """Some samples of a case, the same at each call."""
    torch.manual_seed(0)
    return [differentiable(sample) for sample in chosen(list(cases()[key]()))]


def operator_samples(op: Any) -> Iterator[Sample]:
    """An operator as torch's own gradient checks call it: `gradcheck_wrapper` symmetrises what must be symmetric."""
    for sample in op.sample_inputs("cpu", torch.float64):
        if sample.kwargs.get("scale_grad_by_freq"):  # its gradient is, by definition, that of no function
            continue
        process, held = sample.output_process_fn_grad, _without_padding(op, sample)

        def func(first: Any, args: Any, kwargs: Any, process: Any = process, held: Any = held) -> Any:
            return process(op.gradcheck_wrapper(op.op, held(first), *args, **kwargs))

        yield Sample(func, (sample.input, sample.args, sample.kwargs), op.op)


def _without_padding(op: Any, sample: Any) -> Callable[[Any], Any]:
    """What holds the row of an embedding that has, by definition, no gradient."""
    row = sample.kwargs.get("padding_idx")
    if op.name != "nn.functional.embedding" or row is None:
        return lambda weight: weight
    padding = torch.arange(len(sample.input))[:, None] == row % len(sample.input)
    return lambda weight: torch.where(padding, sample.input, weight)


def layer_samples(info: Any, training: bool) -> Iterator[Sample]:
    """A layer as a function of its parameters and inputs; attention by the kernel that has all derivatives.

    Buffers are copied at each call: batch norm writes its running statistics into them.
    """
    inputs = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=training)
    for given in inputs:
        module = info.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs)
        module = module.to(torch.float64).train(training)
        if given.forward_input is None:
            continue
        with torch.no_grad():
            module(*given.forward_input.args, **given.forward_input.kwargs)  # lazy layers make their parameters now

        def func(parameters: Any, args: Any, kwargs: Any, module: Any = module) -> Any:
            buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
            with sdpa_kernel(SDPBackend.MATH):
                return functional_call(module, (parameters, buffers), args, kwargs)

        parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
        yield Sample(func, (parameters, given.forward_input.args, given.forward_input.kwargs))


def differentiable(sample: Sample) -> Sample:
    """The sample, or its first tensor alone where torch gives another no derivative at all."""
    try:
        operators_in(sample.func, sample.primals)
    except Exception as error:
        if "not differentiable with respect to" in str(error):
            return sample.first_alone()
    return sample


def _differentiable(func: Callable[..., Any]) -> Callable[..., Any]:
    """`func` without the results torch declares to have no derivative: saved means, indices, masks."""
    kept: list[int] = []

    def selected(*primals: Any) -> list[Any]:
        if not kept:
            tracked = tree_map_only(Tensor, lambda x: x.detach().requires_grad_(x.is_floating_point()), primals)
            with _NoRandomness():
                leaves = tree_leaves(func(*tracked))
            kept.extend(i for i, y in enumerate(leaves) if isinstance(y, Tensor) and y.requires_grad)
        leaves = tree_leaves(func(*primals))
        return [leaves[i] for i in kept]

    return selected


class _NoRandomness(TorchDispatchMode):
    """Refuses operations that draw random numbers: with other numbers they are another function."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise ValueError(f"{func} draws random numbers")
        return func(*args, **(kwargs or {}))


def chosen(samples: list[Sample]) -> list[Sample]:
    """The first usable one, the smallest, the middle one and the largest; of the largest also its first tensor alone.

    Batching rules differ by which tensors are batched, so what moves along matters.
    """
    usable = [sample for sample in samples if 1 < sample.size <= _LARGEST] or samples
    if not usable:
        return []
    ranked = sorted(usable, key=lambda sample: sample.size)
    picked = [usable[0], ranked[0], ranked[len(ranked) // 2], ranked[-1], ranked[-1].first_alone()]
    return list(dict.fromkeys(picked))
