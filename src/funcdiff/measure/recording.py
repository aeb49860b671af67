"""Collect what a page measures."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from funcdiff._tables import Record

R = TypeVar("R", bound=Record)

_open_logs: list[list[Record]] = []


@contextmanager
def recording() -> Iterator[list[Record]]:
    """Collect every comparison, count, sweep and claim made inside, in order.

    Yields:
        The list they are appended to.

    >>> import torch
    >>> from funcdiff.measure import count
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
