"""torch.func's machinery beneath its public face: active transforms, and vmap without its search for trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import _add_batch_dim, _remove_batch_dim, _vmap_decrement_nesting, _vmap_increment_nesting
from torch._functorch import predispatch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.func import vmap
from torch.utils._python_dispatch import _disable_current_modes

vjp: Callable[..., tuple[Any, ...]] = torch.func.vjp  # torch's types know only the results without aux
jvp: Callable[..., tuple[Any, ...]] = torch.func.jvp  # the same
Layers = Sequence[tuple[int, int | None]]  # the level of each transform, and vmap's axis


def transforms_active() -> bool:
    """Inside vmap, grad or jvp."""
    return torch._C._are_functorch_transforms_active()


def plain_allowed() -> bool:
    """Not inside vmap, grad, jvp, torch.compile or inference mode, where only torch.func differentiates."""
    return not (torch.compiler.is_compiling() or transforms_active() or torch.is_inference_mode_enabled())


@contextmanager
def outside() -> Iterator[None]:
    """As if no transform were active, no inference mode, and gradients enabled."""
    with temporarily_clear_interpreter_stack(), torch.inference_mode(False), torch.enable_grad():
        yield


unobserved = _disable_current_modes  # what is done to plan is nobody's, whoever counts operations around it


def batched(func: Callable[..., Sequence[Tensor]], randomness: str) -> Callable[..., Sequence[Tensor]]:
    """`torch.func.vmap(func)` of flat tensors, batched along axis 0: vmap looks for trees at length each time."""
    if torch.compiler.is_compiling():
        return vmap(lambda *stacks: tuple(func(*stacks)), randomness=randomness)
    if not predispatch.DECOMPOSITIONS_LOADED:
        predispatch.lazy_load_decompositions()

    def run(*stacks: Tensor) -> Sequence[Tensor]:
        size = stacks[0].shape[0]
        level = _vmap_increment_nesting(size, randomness)
        try:
            results = func(*[_add_batch_dim(x, 0, level) for x in stacks])
            return [_remove_batch_dim(y, level, size, 0) for y in results]
        finally:
            _vmap_decrement_nesting()

    return run


def undrawn() -> AbstractContextManager[None]:
    """Leave the random generators as they were before."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return torch.random.fork_rng(devices=devices)


def values(x: Tensor) -> Tensor | None:
    """What a tensor holds, beneath all transforms; of a batch its second row; None if nothing can be read there."""
    x, layers = beneath(x)
    if type(x) not in (Tensor, torch.nn.Parameter):
        return None
    with outside():
        for _, axis in reversed(layers):  # of the innermost transform first
            if axis is not None:
                if not x.shape[axis]:
                    return None
                x = x.select(axis, min(1, x.shape[axis] - 1))
        return x.detach().clone()


def beneath(x: Tensor) -> tuple[Tensor, Layers]:
    """A tensor without the transforms around it, and these, the last one first."""
    layers = []
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        axis = torch._C._functorch.maybe_get_bdim(x) if torch._C._functorch.is_batchedtensor(x) else None
        layers.append((torch._C._functorch.maybe_get_level(x), axis))
        x = torch._C._functorch.get_unwrapped(x)
    return x, layers


def above(x: Tensor, layers: Layers) -> Tensor:
    """A tensor as one of these transforms: a constant to those that differentiate."""
    for level, axis in reversed(layers):
        x = torch._C._functorch._wrap_for_grad(x, level) if axis is None else _add_batch_dim(x, axis, level)
    return x


def unwrapped(x: torch.Tensor) -> tuple[torch.Tensor, set[int], bool]:
    """What a tensor is beneath all transforms, their levels, and whether a graph is kept at any of them."""
    levels, graph = set(), x.requires_grad
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        levels.add(torch._C._functorch.maybe_get_level(x))
        x = torch._C._functorch.get_unwrapped(x)
        graph = graph or x.requires_grad
    return x, levels, graph


def graph_beneath(x: Tensor) -> bool:
    """Whether a transform's tensor has a graph at any level, of which a batched one says nothing itself."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x)) and unwrapped(x)[2]


def kept_for_gradients(leaves: Sequence[Any]) -> bool:
    """Whether results of these may be differentiated in reverse mode, by plain autograd or by a transform around."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and unwrapped(x)[2] for x in leaves)
