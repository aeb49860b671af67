"""The kinds of operation: how each carries jets, given ``h``, the operation as a function of its jets only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vmap

from funcdiff._jets.jet import Jet, carry
from funcdiff._torch.trees import tree_leaves, tree_map


def constant(h: Callable[..., Any], jets: list[Jet]) -> Any:
    """Piecewise constant: comparisons, rounding, indices, shapes."""
    return h(*_values(jets))


def linear(h: Callable[..., Any], jets: list[Jet]) -> Any:
    """Linear in all jets together: Dh is h itself, on the whole stack at once."""
    value = h(*_values(jets))
    if not any(isinstance(y, Tensor) and (y.is_floating_point() or y.is_complex()) for y in tree_leaves(value)):
        return value
    return carry(jets, value, vmap(h), shared=True)


def affine(h: Callable[..., Any], jets: list[Jet]) -> Any:
    """Affine, at least piecewise: Dh by torch's own forward mode, no curvature."""
    return carry(jets, h(*_values(jets)), _differential(h, jets))


def view(h: Callable[..., Any], jets: list[Jet]) -> Any:
    """Affine, and perhaps a view of a jet."""
    return carry(jets, h(*_values(jets)), _differential(h, jets), shared=True)


def smooth(h: Callable[..., Any], jets: list[Jet]) -> Any:
    """Any operation whose nested forward mode is right in torch: D²h[a, b] is jvp inside jvp."""
    values, only = _primals(jets), _floating(h)

    def bend(a: list[Any], b: list[Any]) -> Any:
        return jvp(lambda *xs: jvp(only, xs, tuple(a))[1], values, tuple(b))[1]

    return carry(jets, h(*values), _differential(h, jets), _along(bend))


def elementwise(h: Callable[..., Any], jets: list[Jet]) -> Any:
    """One function g of each entry: its two derivatives there serve all directions."""
    if len(jets) > 1:
        return smooth(h, jets)
    if not jets[0].pairs.curved:
        return piecewise_linear(h, jets)
    (x,) = _primals(jets)
    one = torch.ones_like(x)
    (value, slope), (_, bend) = _push(lambda x: _push(h, x, one), x, one)
    jet = carry(jets, value, lambda t: slope * aligned(t, value))
    jet.second = jet.pairs.add_bend(jet.second, bend, aligned(jets[0].first, value))
    return jet


def piecewise_linear(h: Callable[..., Any], jets: list[Jet]) -> Any:
    """One function g of each entry, with g'' = 0, or none asked for."""
    if len(jets) > 1:
        return affine(h, jets)
    (x,) = _primals(jets)
    value, slope = _push(h, x, torch.ones_like(x))
    return carry(jets, value, lambda t: slope * aligned(t, value))


def bilinear(h: Callable[..., Any], jets: list[Jet]) -> Any:
    """A product h(x, y), linear in each: its curvature is h(x_i, y_j) + h(x_j, y_i)."""
    if len(jets) == 1:
        return carry(jets, h(jets[0].value), vmap(h))
    if len(jets) > 2:
        return smooth(h, jets)
    x, y = _values(jets)
    left, right, both = vmap(h, (0, None)), vmap(h, (None, 0)), vmap(h)
    return carry(
        jets,
        h(x, y),
        lambda s, t: left(s, y) + right(x, t),
        lambda a, b: both(a[0], b[1]) + both(b[0], a[1]),
    )


def aligned(stack: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Give a stack (k, *S) as many axes after its first as the ``value`` it broadcasts to."""
    missing = value.dim() - stack.dim() + 1
    return stack.reshape(stack.shape[0], *(1,) * missing, *stack.shape[1:]) if missing > 0 else stack


def _values(jets: list[Jet]) -> tuple[torch.Tensor, ...]:
    return tuple(jet.value for jet in jets)


def _primals(jets: list[Jet]) -> tuple[torch.Tensor, ...]:
    """The values, copied: torch's forward mode refuses some expanded and sliced tensors."""
    return tuple(jet.value.clone() for jet in jets)


def _push(func: Callable[..., Any], x: torch.Tensor, tangent: torch.Tensor) -> tuple[Any, Any]:
    """The jvp in one argument, as a pair: torch's own is typed as two or three results."""
    value, slope = jvp(func, (x,), (tangent,))[:2]
    return value, slope


def _floating(h: Callable[..., Any]) -> Callable[..., Any]:
    """Only the floating-point outputs of ``h``: a jvp has no others."""
    return lambda *xs: tuple(leaf for leaf in tree_leaves(h(*xs)) if leaf.is_floating_point())


def _along(func: Callable[..., Any]) -> Callable[..., Any]:
    """Vmap over stacks; unrolled for torch.compile, which fails on forward mode inside a vmap inside a vmap."""
    if not torch.compiler.is_compiling():
        return vmap(func)

    def unrolled(*stacks: Any) -> list[torch.Tensor]:
        count = len(tree_leaves(stacks)[0])
        outputs = [func(*(tree_map(lambda stack, k=k: stack[k], s) for s in stacks)) for k in range(count)]
        return [torch.stack(some) for some in zip(*outputs, strict=True)]

    return unrolled


def _differential(h: Callable[..., Any], jets: list[Jet]) -> Callable[..., Any]:
    values, only = _primals(jets), _floating(h)
    return _along(lambda *tangents: jvp(only, values, tangents)[1])
