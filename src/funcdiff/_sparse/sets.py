"""Sets of inputs, one for each of many elements: rows of a table, which elements name by number.

A table is a matrix in compressed rows: `members[starts[i]:starts[i + 1]]` is set i, in ascending order. Set 0 is empty.
Elements that depend on the same inputs share a row, so to move elements is to move numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
LIMIT = 20_000_000  # members in a union before doubles are dropped: 160 MB


class TooManyError(Exception):
    """The sets would have more members than LIMIT."""


@dataclass(frozen=True, eq=False)
class Table:
    """Sets in compressed rows; the first is empty."""

    starts: Ints
    members: Ints

    def __len__(self) -> int:
        return len(self.starts) - 1

    @staticmethod
    def singletons(n: int) -> Table:
        """The empty set, and then {0}, {1}, ... with one input each."""
        return Table(np.concatenate([[0], np.arange(n + 1)]), np.arange(n))

    def rows(self, ids: Ints) -> tuple[Ints, Ints]:
        """The sizes of some sets, and their members in a row."""
        sizes = self.starts[ids + 1] - self.starts[ids]
        total = int(sizes.sum())
        if total > LIMIT:
            raise TooManyError(f"{total:,}")
        ends = np.cumsum(sizes)
        places = np.arange(total) + np.repeat(self.starts[ids] - (ends - sizes), sizes)
        return sizes, self.members[places]


@dataclass(frozen=True, eq=False)
class Sets:
    """A set for each element of an array: `ids` are rows of `table`."""

    ids: Ints
    table: Table

    def reshape(self, shape: Sequence[int]) -> Sets:
        """The same sets in an array of another shape."""
        return Sets(self.ids.reshape(shape), self.table)

    def broadcast(self, shape: Sequence[int]) -> Sets:
        """The sets of an array that is repeated."""
        return self if self.ids.shape == tuple(shape) else Sets(np.broadcast_to(self.ids, shape), self.table)


def joined(parts: Sequence[Sets]) -> tuple[list[Ints], Table]:
    """The ids of several arrays as rows of one table."""
    tables = list({id(part.table): part.table for part in parts}.values())
    if len(tables) == 1:
        return [part.ids for part in parts], tables[0]
    shifts = dict(zip(map(id, tables), np.cumsum([0, *(len(table) - 1 for table in tables)]).tolist(), strict=False))
    ids = [part.ids + shifts[id(part.table)] * (part.ids > 0) for part in parts]
    ends = np.cumsum([0, *(len(table.members) for table in tables)])
    starts = [table.starts[2:] + end for table, end in zip(tables, ends, strict=False)]
    return ids, Table(np.concatenate([[0, 0], *starts]), np.concatenate([table.members for table in tables]))


def united(places: Sequence[Ints], parts: Sequence[Sets], shape: Sequence[int], n: int) -> Sets:
    """For each element of an array of this shape the union of the sets that are sent there.

    `places[k]` has for each element of `parts[k]` its place in the array, counted in rows of memory.
    """
    count = int(np.prod(shape, dtype=np.int64))
    bits = int(n).bit_length()
    keys = []
    for place, part in zip(places, parts, strict=True):
        place, ids, table = place.ravel(), part.ids.ravel(), part.table
        here = ids > 0
        if not here.all():
            place, ids = place[here], ids[here]
        if int((table.starts[ids + 1] - table.starts[ids]).sum()) > 4 * len(ids):  # many may be the same
            place, ids = divmod(distinct(place * len(table) + ids), len(table))
        sizes, members = table.rows(ids)
        keys.append((np.repeat(place, sizes) << bits) | members)
    if sum(map(len, keys)) > LIMIT:
        raise TooManyError(f"{sum(map(len, keys)):,}")
    found = distinct(np.concatenate(keys) if keys else np.empty(0, np.int64))
    starts = np.zeros(count + 2, np.int64)
    np.cumsum(np.bincount(found >> bits, minlength=count), out=starts[2:])
    return Sets(np.arange(1, count + 1).reshape(shape), Table(starts, found & ((1 << bits) - 1)))


def elementwise(parts: Sequence[Sets], shape: Sequence[int], n: int) -> Sets:
    """For each element the union of the sets at its place in each array, which broadcast."""
    parts = [part.broadcast(shape) for part in parts if part.ids.any()] or [parts[0].broadcast(shape)]
    first, *rest = parts
    parts = [first, *(p for p in rest if not (p.table is first.table and np.array_equal(p.ids, first.ids)))]
    if len(parts) == 1:
        return first
    count, shape = first.ids.size, tuple(shape)
    if count > 2 * sum(len(part.table) for part in parts):  # the same few pairs at many places: each is united once
        keys = np.zeros(count, np.int64)
        for part in parts:
            keys = np.unique(keys, return_inverse=True)[1] * len(part.table) + part.ids.ravel()
        _, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
        few = united(
            [np.arange(len(index))] * len(parts), [Sets(p.ids.ravel()[index], p.table) for p in parts], index.shape, n
        )
        return Sets(few.ids[inverse].reshape(shape), few.table)
    return united([np.arange(count)] * len(parts), parts, shape, n)


def reduced(part: Sets, axes: Sequence[int], n: int) -> Sets:
    """The unions over some axes of an array, which are kept with length 1."""
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(part.ids.shape))
    if shape == part.ids.shape:
        return part
    places = np.broadcast_to(np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape), part.ids.shape)
    return united([places], [part], shape, n)


def distinct(keys: Ints) -> Ints:
    """The keys once each, in order. They mostly come as a few runs in order, which a stable sort only merges."""
    keys = np.sort(keys, kind="stable")
    if len(keys) < 2:
        return keys
    new = np.empty(len(keys), bool)
    new[0] = True
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return keys[new]
