"""What a function captures."""

from __future__ import annotations

from typing import Any


def captured(func: Any) -> list[Any]:
    """The values in the closure of a function, without those of names that are not yet, or no longer, bound."""
    values = []
    for cell in func.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # the name is not bound
            continue
    return values
