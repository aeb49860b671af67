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
    """Whether the results' gradients agree, with respect to the arguments and to what the function holds.

    Entry by entry, as a small one beside a large one may lack a term. How far it moves with the last digits of the
    arguments says what rounding may do to it. Also at points apart from the examples, as a function of pieces may have
    a piece that shows nothing of what another one lacks.
    """
    wanted = [_wanted(flat, [moved(x, scale) for x in examples], held) for scale in (1, BESIDE)]
    generator = torch.Generator().manual_seed(0)
    for size in (0.25, 0.5, 1, 1, 2):
        try:
            wanted.append(_wanted(flat, [_elsewhere(x, size, generator) for x in examples], held))
        except Exception:  # nobody said that the function is defined there
            continue
    return all(
        _agree_in_each_entry(expected, found, near)
        for point, gradients, moves in wanted
        for expected, found, near in zip(gradients, _gradients(run, point, held), moves, strict=True)
    )


def _elsewhere(x: Tensor, size: float, generator: torch.Generator) -> Tensor:
    if not x.is_floating_point():
        return x
    drawn = torch.randn(x.shape, generator=generator).to(x) * size * max(1.0, _largest(x))
    return drawn.requires_grad_(x.requires_grad)


def _wanted(
    flat: Flat, point: Sequence[Tensor], held: Sequence[Tensor]
) -> tuple[Sequence[Tensor], list[Tensor], list[Tensor]]:
    """The point, the gradients there, and those so near to it that only rounding should tell them apart."""
    near = [moved(x, 1 + 2**-22) for x in point]
    return point, _gradients(flat, point, held), _gradients(flat, near, held)


def _agree_in_each_entry(expected: Tensor, found: Tensor, near: Tensor) -> bool:
    if not agree(expected, found):
        return False
    eps = torch.finfo(expected.dtype).eps
    allowed = eps**0.5 * expected.abs() + 30 * (expected - near).abs() + max(10 * eps, 1e-9) * _largest(expected)
    return not ((found - expected).abs() > allowed).any()  # what is not finite was compared above


def _gradients(function: Flat, point: Sequence[Tensor], held: Sequence[Tensor]) -> list[Tensor]:
    results, sources = function(*point), [x for x in (*held, *point) if x.requires_grad]
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
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance * _largest(expected), equal_nan=True)


def _largest(x: Tensor) -> float:
    finite = x.detach().abs().nan_to_num(0, 0, 0)
    return float(finite.max()) if finite.numel() else 0.0
