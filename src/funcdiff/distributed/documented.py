"""The parts that the docstrings of this room share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from funcdiff._automatic.choice import AUTOMATIC, ERRORS

TEXTS: Mapping[str, Any] = dict(
    AUTOMATIC,
    gather="Whether every process gets the whole result, as an ordinary tensor. By default, each keeps its part of a "
    "`DTensor`.",
    group="The process group. By default, all processes.",
    returns="A function that takes the arguments of `func` and returns the {result}. Pass the same arguments on all "
    "processes. `func` receives a sharded argument (a DTensor) whole. The first call with new shapes compares the "
    "shapes and values of the arguments and the code of `func` between the processes; later calls do not.",
    raises={
        "MemoryError": ERRORS["MemoryError"],
        "ValueError": "An option has a value that is not allowed, or the arguments, the options or the code of "
        "`func` differ between processes. The message names the ranks.",
        "RuntimeError": "There is no process group, a process failed or does not answer, or torch cannot "
        "differentiate `func`. The message says what to do.",
    },
)
