"""Collect what a page measures."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from funcdiff._tables import Record

R = TypeVar("R", bound=Record)

_open_logs: list[list[Record]] = []


@contextmanager
def recording() -> Iterator[list[Record]]:
    """Collect all comparisons, counts, sweeps and claims that are made inside a ``with`` block.

    Yields:
        The list in which they are collected, in order.

    Example:
        >>> import torch
        >>> from funcdiff.measure import count, recording
        >>> with recording() as log:
        ...     cost = count(torch.square, torch.ones(3))
        >>> log == [cost]
        True
    """
    log: list[Record] = []
    _open_logs.append(log)
    try:
        yield log
    finally:
        _open_logs[:] = [other for other in _open_logs if other is not log]


def recorded(record: R) -> R:
    """Append a measurement to every log that is open, and return it."""
    for log in _open_logs:
        log.append(record)
    return record
