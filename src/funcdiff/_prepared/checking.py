"""Whether a prepared line gives what the function gives: values, and gradients where they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._torch.messages import RefusedError
from funcdiff._torch.transforms import undrawn

Flat = Callable[..., Sequence[Tensor]]

OTHER_RESULTS = (
    "cannot prepare this function: the recorded operations return other numbers than the function itself, so it "
    "depends on more than its arguments"
)
BESIDE = 1 + 2**-6  # times the examples: another point, where what was read from the examples shows


def refuse_other_results(flat: Flat, run: Flat, examples: Sequence[Tensor]) -> None:
    """Raise unless `run` gives what `flat` gives, at the examples and beside them."""
    for scale in (1, BESIDE):
        point = [moved(x, scale) for x in examples]
        with undrawn():
            wanted, found = flat(*map(copy, point)), run(*map(copy, point))
        if not all(map(agree, wanted, found)):
            raise RefusedError(OTHER_RESULTS)


def same_gradients(flat: Flat, run: Flat, examples: Sequence[Tensor], held: Sequence[Tensor]) -> bool:
    """Whether the results' gradients agree, with respect to the arguments and to what the function holds."""
    point = [copy(x) for x in examples]
    sources = [x for x in (*held, *point) if x.requires_grad]
    wanted, found = (_gradients(function(*point), sources) for function in (flat, run))
    return all(agree(a, b) for a, b in zip(wanted, found, strict=True))


def _gradients(results: Sequence[Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    chosen = [result for result in results if result.requires_grad]
    if not chosen:
        return [torch.zeros_like(source) for source in sources]
    cotangents = [torch.randn(result.shape, generator=generator).to(result) for result in chosen]
    found = torch.autograd.grad(chosen, sources, cotangents, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(sources, found, strict=True)]


def moved(x: Tensor, scale: float) -> Tensor:
    """The example, or a point beside it, apart from the caller's graph."""
    x_there = x.detach() * scale if x.is_floating_point() or x.is_complex() else x.detach()
    return x_there.requires_grad_(x.requires_grad)


def copy(x: Tensor) -> Tensor:
    """The same numbers in other memory, as a leaf of its own."""
    return x.detach().clone().requires_grad_(x.requires_grad)


def agree(expected: Tensor, found: Tensor) -> bool:
    """Whether two results differ by rounding at most."""
    if (expected.shape, expected.dtype, expected.device) != (found.shape, found.dtype, found.device):
        return False
    if not (expected.is_floating_point() or expected.is_complex()):
        return torch.equal(expected, found)
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    finite = expected.detach().abs().nan_to_num(0, 0, 0)
    scale = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
