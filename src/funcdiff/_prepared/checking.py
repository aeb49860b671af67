"""Whether a prepared line gives what the function gives: values, and gradients where they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._torch.messages import RefusedError, cannot, reason
from funcdiff._torch.transforms import undrawn

Flat = Callable[..., Sequence[Tensor]]
Gradient = Tensor | str  # or why torch finds none

OTHER_RESULTS = (
    "cannot prepare this function: the recorded operations return other numbers than the function itself, so it "
    "depends on more than its arguments"
)
NO_GRADIENTS = (
    "cannot prepare this function so that its result can be differentiated again: the gradients of the recorded "
    "operations differ from its own. Prepare and call it under torch.no_grad(), or call the function itself"
)
NOT_AGAIN = (
    "cannot prepare this function so that its result can be differentiated again: torch cannot differentiate the "
    "result of the function itself ({}). Prepare and call it under torch.no_grad(), or remove what stops torch, such "
    "as torch.utils.checkpoint"
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


def other_gradients(flat: Flat, run: Flat, examples: Sequence[Tensor], held: Sequence[Tensor]) -> str:
    """Why the gradients do not agree, with respect to the arguments and to what the function holds; or nothing.

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
    for point, gradients, moves in wanted:
        if why := _difference(gradients, _gradients(run, point, held, apart=_lacking(gradients)), moves):
            return why
    return ""


def _difference(wanted: Sequence[Gradient], found: Sequence[Gradient], near: Sequence[Gradient]) -> str:
    """What to say of gradients that do not agree; nothing of those that do, or where torch finds neither."""
    if len(wanted) != len(found):
        return NO_GRADIENTS
    for expected, got, moved in zip(wanted, found, near, strict=True):
        if isinstance(expected, str):
            if isinstance(got, Tensor):  # there is nothing to compare it with
                return NOT_AGAIN.format(expected)
        elif isinstance(got, str) or not (isinstance(moved, str) or _agree_in_each_entry(expected, got, moved)):
            return NO_GRADIENTS
    return ""


def _lacking(gradients: Sequence[Gradient]) -> bool:
    return any(isinstance(gradient, str) for gradient in gradients)


def _elsewhere(x: Tensor, size: float, generator: torch.Generator) -> Tensor:
    if not x.is_floating_point():
        return x
    drawn = torch.randn(x.shape, generator=generator, device="cpu").to(x) * size * max(1.0, _largest(x))
    return drawn.requires_grad_(x.requires_grad)


def _wanted(
    flat: Flat, point: Sequence[Tensor], held: Sequence[Tensor]
) -> tuple[Sequence[Tensor], list[Gradient], list[Gradient]]:
    """The point, the gradients there, and those so near to it that only rounding should tell them apart."""
    near = [moved(x, 1 + 2**-22) for x in point]
    gradients = _gradients(flat, point, held)
    return point, gradients, _gradients(flat, near, held, apart=_lacking(gradients))


def _agree_in_each_entry(expected: Tensor, found: Tensor, near: Tensor) -> bool:
    if not agree(expected, found):
        return False
    eps = torch.finfo(expected.dtype).eps
    allowed = eps**0.5 * expected.abs() + 30 * (expected - near).abs() + max(10 * eps, 1e-9) * _largest(expected)
    return not ((found - expected).abs() > allowed).any()  # what is not finite was compared above


def _gradients(
    function: Flat, point: Sequence[Tensor], held: Sequence[Tensor], *, apart: bool = False
) -> list[Gradient]:
    """Those with respect to all sources, for all results together or, where torch cannot do this, for each apart."""
    results, sources = function(*point), [x for x in (*held, *point) if x.requires_grad]
    generator = torch.Generator().manual_seed(0)
    chosen = [result for result in results if result.requires_grad]
    if not chosen:
        return [torch.zeros_like(source) for source in sources]
    cotangents = [torch.randn(result.shape, generator=generator, device="cpu").to(result) for result in chosen]

    def gradients(of: Sequence[Tensor], by: Sequence[Tensor], along: Sequence[Tensor]) -> list[Gradient]:
        try:
            found = torch.autograd.grad(of, by, along, retain_graph=True, allow_unused=True)
        except Exception as error:  # raised again unless torch cannot differentiate it
            if not cannot(error):
                raise
            return [reason(error)]
        return [torch.zeros_like(x) if g is None else g for x, g in zip(by, found, strict=True)]

    together = [] if apart else gradients(chosen, sources, cotangents)
    if together and not _lacking(together):
        return together
    pairs = zip(chosen, cotangents, strict=True)
    return [one for result, along in pairs for source in sources for one in gradients([result], [source], [along])]


def lost_paths(flat: Flat, line: Flat, point: Sequence[Tensor], held: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Pairs of a result and a source that the graph of `flat` connects, and the graph of `line` no longer does.

    The gradient is zero there, and a caller who asks for it shall get zeros rather than an error.
    """
    (before, reached), (after, still) = (_paths(function, point, held) for function in (flat, line))
    gone = reached - still
    return [
        (i, j)
        for i, (had, has) in enumerate(zip(before, after, strict=True))
        for j in sorted((gone if has else reached) if had else ())
    ]


def _paths(function: Flat, point: Sequence[Tensor], held: Sequence[Tensor]) -> tuple[list[bool], set[int]]:
    """Which results require grad, and the sources, captured tensors first, that their graph leads to."""
    point = [copy(x) for x in point]
    results = function(*point)
    chosen = [result for result in results if result.requires_grad]
    sources = {j: x for j, x in enumerate((*held, *point)) if x.requires_grad}
    found: Sequence[Tensor | None] = []
    if chosen:
        zeros = [torch.zeros_like(result) for result in chosen]
        try:
            found = torch.autograd.grad(chosen, list(sources.values()), zeros, allow_unused=True)
        except Exception as error:  # raised again unless torch cannot differentiate it
            if not cannot(error):
                raise
    reached = {j for j, gradient in zip(sources, found, strict=False) if gradient is not None}
    return [result.requires_grad for result in results], reached


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
