"""Which columns, or rows, one pass can compute together: a colour for each, by first fit.

Colours that are taken are kept as the bits of an integer, so that the first free colour is the lowest zero bit.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from funcdiff._sparse.sets import Ints
from funcdiff._torch.tracing import being_traced


class Pattern(Protocol):
    """What is read of a matrix's pattern; see `pattern.Pattern`."""

    shape: tuple[int, int]
    starts: Ints
    columns: Ints

    @property
    def nnz(self) -> int:
        """The number of entries."""

    @property
    def rows(self) -> Ints:
        """The row of each entry."""

    @property
    def transposed(self) -> Pattern:
        """The pattern with rows and columns exchanged."""


@dataclass(frozen=True, eq=False)
class Groups:
    """A way to read all entries of a matrix from a few products with it.

    Attributes:
        columns: The colour of each column, for forward passes; -1 for those that need no pass.
        rows: The colour of each row, for reverse passes; -1 for those that need no pass.
        places: Where each entry is read: in the forward products, of shape (forward, rows), followed by the reverse
            ones, (reverse, columns), as one vector.
    """

    columns: Ints
    rows: Ints
    places: Ints
    _sent: dict[torch.device, tuple[Tensor, ...]] = field(default_factory=dict)

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        """Columns, rows and places as tensors, sent to a device once; for torch's tracer they are constants."""
        if being_traced() or device not in self._sent:
            small = np.int16 if self.passes < 2**15 else np.int64  # colours are compared at each call
            colours = self.columns.astype(small), self.rows.astype(small)
            sent = tuple(torch.from_numpy(x).to(device) for x in (*colours, self.places))
            if being_traced():
                return sent
            self._sent[device] = sent
        return self._sent[device]

    @cached_property
    def forward(self) -> int:
        """The number of forward passes."""
        return int(self.columns.max(initial=-1)) + 1

    @cached_property
    def reverse(self) -> int:
        """The number of reverse passes."""
        return int(self.rows.max(initial=-1)) + 1

    @property
    def passes(self) -> int:
        """The number of passes in all."""
        return self.forward + self.reverse


def one_sided(pattern: Pattern) -> list[Groups]:
    """The fewest passes that first fit finds: by columns, by rows, or in both ways where they take as many.

    NOTE [peeling]. Columns that meet in one full row all need colours of their own. So the fullest rows are computed in
    reverse passes of their own where this makes fewer passes in all, and the other way round: an arrow takes three.
    """
    turned = pattern.transposed
    if np.array_equal(turned.starts, pattern.starts) and np.array_equal(turned.columns, pattern.columns):
        colours = _colours(pattern)
        return [_by_columns(pattern, *colours), _by_rows(pattern, *colours)]
    bounds = _fullest(pattern)[1], _fullest(turned)[1]
    found = [
        _by_rows(pattern, *_colours(turned)) if bounds[1] < bounds[0] else _by_columns(pattern, *_colours(pattern))
    ]
    if max(bounds) <= found[0].passes:
        found.append(
            _by_columns(pattern, *_colours(pattern)) if bounds[1] < bounds[0] else _by_rows(pattern, *_colours(turned))
        )
    fewest = min(groups.passes for groups in found)
    return [groups for groups in found if groups.passes == fewest]


def by_rows(pattern: Pattern) -> Groups:
    """Reverse passes alone."""
    m, n = pattern.shape
    rows = _first_fit(pattern.rows, pattern.columns, (n, m))
    return _groups(pattern, np.full(n, -1), rows, np.ones(pattern.nnz, bool))


def by_columns(pattern: Pattern) -> Groups:
    """Forward passes alone."""
    columns = _first_fit(pattern.columns, pattern.rows, pattern.shape)
    return _groups(pattern, columns, np.full(pattern.shape[0], -1), np.zeros(pattern.nnz, bool))


def star(pattern: Pattern) -> Groups:
    """Columns of a symmetric matrix: each entry can be read in its own row, or in the row of its mirror image.

    NOTE [stars]. Neighbours have different colours, and no path of four vertices has only two. So of the two readings
    of an entry at least one meets no other column of the same colour. Gebremedhin, Manne and Pothen, "What color is
    your Jacobian?" (2005).
    """
    n = pattern.shape[0]
    starts, neighbours = pattern.starts.tolist(), pattern.columns.tolist()
    found = _star_in_order(range(n), starts, neighbours)
    if found[0].max(initial=0) * n >= pattern.nnz:  # more than a row has entries on average
        other = _star_in_order(_smallest_last(starts, neighbours), starts, neighbours)
        found = min(found, other, key=lambda f: int(f[0].max(initial=0)))
    colours, twice = found
    colours[np.diff(pattern.starts) == 0] = -1
    rows, columns = pattern.rows, pattern.columns
    if colours.max(initial=0) < 63:
        met = (np.array(twice, np.int64)[rows] >> colours[columns] & 1).astype(bool)
    else:
        met = np.array([twice[i] >> c & 1 for i, c in zip(rows.tolist(), colours[columns].tolist(), strict=True)], bool)
    read = np.where(met & (rows != columns), columns, rows), np.where(met & (rows != columns), rows, columns)
    return Groups(colours, np.full(n, -1), colours[read[1]] * n + read[0])


def _smallest_last(starts: list[int], neighbours: list[int]) -> list[int]:
    """Vertices in the reverse of the order in which the one with the fewest neighbours left is taken away."""
    left = [stop - start for start, stop in itertools.pairwise(starts)]
    waiting = [(count, v) for v, count in enumerate(left)]
    heapq.heapify(waiting)
    taken: list[int] = []
    while waiting:
        count, v = heapq.heappop(waiting)
        if count != left[v]:  # it stands there once more, with fewer
            continue
        left[v] = -1
        taken.append(v)
        for w in neighbours[starts[v] : starts[v + 1]]:
            if left[w] >= 0:
                left[w] -= 1
                heapq.heappush(waiting, (left[w], w))
    return taken[::-1]


def _star_in_order(order: Iterable[int], starts: list[int], neighbours: list[int]) -> tuple[Ints, list[int]]:
    """The colours, and for each vertex the colours that two or more of its neighbours have."""
    n = len(starts) - 1
    colours, near, twice, closed = [-1] * n, [0] * n, [0] * n, [0] * n
    for v in order:
        around = [w for w in neighbours[starts[v] : starts[v + 1]] if w != v]
        taken = near[v]
        for w in around:
            if colours[w] >= 0:
                taken |= closed[w]  # else a path v - w - x - y
                if twice[v] >> colours[w] & 1:
                    taken |= near[w]  # else a path y - v - w - x
        bit = ~taken & (taken + 1)
        colours[v] = colour = bit.bit_length() - 1
        for w in around:
            if not near[w] & bit:
                near[w] |= bit
            elif not twice[w] & bit:
                twice[w] |= bit
                if colours[w] >= 0:
                    own = 1 << colours[w]
                    for y in neighbours[starts[w] : starts[w + 1]]:
                        if colours[y] == colour and y != w:
                            closed[y] |= own
            elif colours[w] >= 0:
                closed[v] |= 1 << colours[w]
        for w in around:  # v itself may stand between two neighbours of one colour
            if colours[w] >= 0 and twice[v] >> colours[w] & 1:
                closed[w] |= bit
    return np.array(colours, np.int64), twice


def _colours(pattern: Pattern) -> tuple[Ints, Ints, Ints]:
    """Colours of the columns, without the fullest rows; these rows, and their colours."""
    m, n = pattern.shape
    full = _fullest(pattern)[0]
    if not len(full):
        return _first_fit(pattern.columns, pattern.rows, pattern.shape), full, np.full(m, -1)
    peeled = np.isin(pattern.rows, full)
    columns = _first_fit(pattern.columns[~peeled], pattern.rows[~peeled], (m, n))
    return columns, full, _first_fit(pattern.rows[peeled], pattern.columns[peeled], (n, m))


def _by_columns(pattern: Pattern, columns: Ints, full: Ints, rows: Ints) -> Groups:
    """Forward passes for the columns, and reverse ones for the fullest rows."""
    return _groups(pattern, columns, rows, np.isin(pattern.rows, full))


def _by_rows(pattern: Pattern, rows: Ints, full: Ints, columns: Ints) -> Groups:
    """Reverse passes for the rows, and forward ones for the fullest columns."""
    return _groups(pattern, columns, rows, ~np.isin(pattern.columns, full))


def _groups(pattern: Pattern, columns: Ints, rows: Ints, in_reverse: np.ndarray) -> Groups:
    m, n = pattern.shape
    forward = int(columns.max(initial=-1)) + 1
    read_forward = columns[pattern.columns] * m + pattern.rows
    read_reverse = forward * m + rows[pattern.rows] * n + pattern.columns
    return Groups(columns, rows, np.where(in_reverse, read_reverse, read_forward))


def _fullest(pattern: Pattern) -> tuple[Ints, int]:
    """The fullest rows that are better computed apart, and a bound on the passes: of them, and for the fullest left."""
    sizes = np.diff(pattern.starts)
    order = np.argsort(-sizes, kind="stable")
    passes = np.arange(len(sizes) + 1) + np.append(sizes[order], 0)
    fewest = int(passes.argmin())
    return order[:fewest], int(passes[fewest])


def _first_fit(items: Ints, meets: Ints, shape: tuple[int, int]) -> Ints:
    """Colours for columns `items` that differ where two meet in one of the rows `meets`; -1 without an entry."""
    m, n = shape
    order = np.argsort(items, kind="stable")
    sizes = np.bincount(items, minlength=n)
    starts, rows = np.concatenate([[0], np.cumsum(sizes)]).tolist(), meets[order].tolist()
    found = _in_order(np.flatnonzero(sizes).tolist(), starts, rows, shape)
    if found.max(initial=0) + 1 > np.bincount(meets, minlength=m).max(initial=0):
        by_size = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
        if not np.array_equal(by_size, np.flatnonzero(sizes)):
            found = min(found, _in_order(by_size.tolist(), starts, rows, shape), key=lambda colours: int(colours.max()))
    return found


def _in_order(order: Iterable[int], starts: list[int], rows: list[int], shape: tuple[int, int]) -> Ints:
    taken, colours = [0] * shape[0], [-1] * shape[1]
    for j in order:
        here = rows[starts[j] : starts[j + 1]]
        seen = 0
        for i in here:
            seen |= taken[i]
        bit = ~seen & (seen + 1)
        for i in here:
            taken[i] |= bit
        colours[j] = bit.bit_length() - 1
    return np.array(colours, np.int64)
