"""Rules for convolutions and pooling.

A kernel with a single one moves the numbers of the input's elements to where a convolution reads them: so torch's own
convolution tells what each window holds, with its strides, paddings, dilations and groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product as every
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from funcdiff._sparse import sets
from funcdiff._sparse.elements import Found, Known, all_of, everything, union
from funcdiff._sparse.sets import Ints, Sets
from funcdiff._torch.intercept import Operation

Links = Sequence[tuple[int, Any]]  # an entry of the kernel, and which channels it connects; None for all of a group


def convolved(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """A convolution: each element from a window of the input, without the zeros of a constant kernel."""
    given, (y,) = operation.given, targets
    x, weight, bias = known.of(given["input"]), known.of(given["weight"]), known.of(given["bias"])
    channels = (1, -1, *(1,) * (y.ndim - 2))
    parts = [bias and bias.reshape(channels)]
    if weight is not None:
        parts.append(_of_kernel(known, weight, given).reshape(channels))
    if x is not None:
        windows = _windows(given["input"], given)
        kernel = given["weight"]
        links = _links(known, operation, kernel, weight is None)
        parts.append(_gathered(known, x, windows, links, y.shape, given))
    return [union(known, parts, y.shape)]


def convolved_back(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """The gradients of a convolution: the input's from the same windows, the kernel's from whole channels."""
    given = operation.given
    grad, kernel = known.of(given["grad_output"]), known.of(given["weight"])
    wanted = iter(targets)
    found: list[Sets | None] = []
    space = tuple(range(2, given["grad_output"].ndim))
    if given["output_mask"][0]:
        target = next(wanted)
        parts = [all_of(known, given["weight"])]
        if grad is not None:
            windows = _windows(given["input"], given)
            links = _links(known, operation, given["weight"], kernel is None)
            parts.append(_scattered(known, grad, windows, links, target.shape, given))
        found.append(union(known, parts, target.shape))
    if given["output_mask"][1]:
        target = next(wanted)
        parts = [all_of(known, given["input"])]
        if grad is not None:
            whole = sets.reduced(grad, (0, *space), known.n)
            first = (-1, 1, *(1,) * len(space)) if not given["transposed"] else None
            parts.append(whole.reshape(first) if first else all_of(known, given["grad_output"]))
        found.append(union(known, parts, target.shape))
    if given["output_mask"][2]:
        target = next(wanted)
        found.append(sets.reduced(grad, (0, *space), known.n).reshape(target.shape) if grad is not None else None)
    return found


def pooled(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from a window of its own channel."""
    x, y = operation.given["self"], targets[0]
    if (found := known.of(x)) is None:
        return everything(known, operation, targets)
    windows, links, given, shape = _of_pooling(operation, x, y)
    return [_gathered(known, found.reshape(shape), windows, links, windows[0].shape, given).reshape(y.shape)]


def pooled_back(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """The gradient of pooling: each element from the windows that it is in."""
    grad, x = operation.given["grad_output"], operation.given["self"]
    if (found := known.of(grad)) is None:
        return everything(known, operation, targets)
    windows, links, given, shape = _of_pooling(operation, x, grad)
    whole = _scattered(known, found.reshape(windows[0].shape), windows, links, shape, given)
    return [whole.reshape(x.shape)]


def by_plane(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from all of its own channel."""
    given = operation.given
    found, y = known.of(given.get("grad_output", given.get("self"))), targets[0]
    batched = y.ndim - (3 if "3d" in operation.name else 2 if "2d" in operation.name else 1)
    if found is None:
        return everything(known, operation, targets)
    return [sets.reduced(found, range(batched, y.ndim), known.n).broadcast(y.shape)]


def _of_pooling(operation: Operation, x: Tensor, y: Tensor) -> tuple[list[Ints], Links, dict[str, Any], Sequence[int]]:
    """Pooling as a convolution of each channel: its windows, links and arguments, and the shape of its input."""
    given = operation.given
    dims = int(operation.name.split("pool")[1][0])

    def each(value: Any) -> list[int]:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return values * dims if len(values) == 1 else values

    kernel = each(given["kernel_size"])
    shape = (1, *x.shape) if x.ndim == dims + 1 else tuple(x.shape)
    conv = {
        "stride": each(given["stride"] or kernel),
        "padding": each(given["padding"]),
        "dilation": each(given.get("dilation", 1)),
        "transposed": False,
        "output_padding": [0] * dims,
        "groups": shape[1],
    }
    like = x.detach().reshape(shape)
    windows = _windows(like, {**conv, "weight": like.new_empty((shape[1], 1, *kernel))}, y.shape[-dims:])
    return windows, [(k, None) for k in range(math.prod(kernel))], conv, shape


def _windows(x: Tensor, given: dict[str, Any], lengths: Sequence[int] = ()) -> list[Ints]:
    """For each entry of a kernel, and each channel of the input: the number + 1 of the element read, 0 beside it.

    Where the output has other `lengths`, as pooling rounds them up, its last windows reach beyond the padding.
    """
    shape = tuple(given["weight"].shape[2:])
    channels = x.shape[1]
    numbers = torch.arange(1, x.numel() + 1, dtype=torch.float64, device="cpu").reshape(x.shape)
    if lengths:
        numbers = pad(numbers, [width for step in reversed(given["stride"]) for width in (0, step)])
    found = []
    for entry in every(*map(range, shape)):
        one = torch.zeros((channels, 1, *shape), dtype=torch.float64, device="cpu")
        place: Any = (slice(None), 0, *entry)
        one[place] = 1
        read = torch.ops.aten.convolution(
            numbers,
            one,
            None,
            given["stride"],
            given["padding"],
            given["dilation"],
            given["transposed"],
            given["output_padding"],
            channels,
        )
        cut = tuple(map(slice, lengths))
        found.append(read[(..., *cut)].numpy().astype(np.int64))
    return found


def _links(known: Known, operation: Operation, kernel: Tensor, constant: bool) -> Links:
    """The entries of a kernel, without its zeros if it is constant: (number of the entry, its matrix of channels)."""
    flat = kernel.detach().reshape(*kernel.shape[:2], -1)
    if not constant or bool((flat != 0).all()) or not known.values(kernel, operation.name):
        return [(k, None) for k in range(flat.shape[2])]
    nonzero = (flat != 0).cpu().numpy()
    return [(k, nonzero[:, :, k]) for k in range(flat.shape[2]) if nonzero[:, :, k].any()]


def _pairs(links: Links, windows: Sequence[Ints], shape: Sequence[int], given: dict[str, Any]) -> tuple[Ints, Ints]:
    """Places in the output and numbers in the input that go together.

    A group counts as one channel of the output where no kernel tells its channels apart.
    """
    groups, found = given["groups"], []
    places = np.arange(math.prod(shape)).reshape(shape)
    batch, space = shape[0], shape[2:]
    for k, connected in links:
        numbers = windows[k].reshape(batch, groups, -1, *space)
        if connected is None:
            found.append(np.broadcast_arrays(places[:, :, None], numbers))
            continue
        wide, narrow = shape[1] // groups, numbers.shape[2]
        for o, i in every(range(shape[1]), range(narrow)):
            group = o // wide
            if connected[(group * narrow + i, o % wide) if given["transposed"] else (o, i)]:
                found.append((places[:, o], numbers[:, group, i]))
    total = sum(numbers.size for _, numbers in found)
    if total > sets.LIMIT:
        raise sets.TooManyError(f"{total:,}")
    empty = np.empty(0, np.int64)
    to, read = (np.concatenate([empty, *(pair[side].ravel() for pair in found)]) for side in (0, 1))
    return to[read > 0], read[read > 0] - 1


def _gathered(
    known: Known, x: Sets, windows: Sequence[Ints], links: Links, shape: Sequence[int], given: dict[str, Any]
) -> Sets:
    """The sets of a convolution's output."""
    groups = given["groups"]
    apart = any(connected is not None for _, connected in links)
    few = (shape[0], shape[1] if apart else groups, *shape[2:])
    places, numbers = _pairs(links, windows, few, given)
    found = sets.united([places], [Sets(x.ids.ravel()[numbers], x.table)], few, known.n)
    return Sets(np.repeat(found.ids, shape[1] // few[1], 1), found.table)


def _scattered(
    known: Known, grad: Sets, windows: Sequence[Ints], links: Links, shape: Sequence[int], given: dict[str, Any]
) -> Sets:
    """The sets of the gradient by a convolution's input."""
    if all(connected is None for _, connected in links):
        batch, channels, *space = grad.ids.shape
        grouped = grad.reshape((batch, given["groups"], channels // given["groups"], *space))
        grad = sets.reduced(grouped, (2,), known.n).reshape((batch, given["groups"], *space))
    places, numbers = _pairs(links, windows, grad.ids.shape, given)
    return sets.united([numbers], [Sets(grad.ids.ravel()[places], grad.table)], shape, known.n)


def _of_kernel(known: Known, weight: Sets, given: dict[str, Any]) -> Sets:
    """A set for each channel of the output: all entries of its kernel."""
    if given["transposed"]:
        whole = sets.reduced(weight, range(weight.ids.ndim), known.n)
        return whole.broadcast((1, *whole.ids.shape[1:]))
    return sets.reduced(weight, range(1, weight.ids.ndim), known.n)
