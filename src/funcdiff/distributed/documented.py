"""The parts that the docstrings of this room share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from funcdiff._automatic.choice import AUTOMATIC

TEXTS: Mapping[str, Any] = dict(
    AUTOMATIC,
    gather="Whether every process gets the whole result, as an ordinary tensor. By default each keeps its part.",
    group="The process group, by default all processes.",
    returns="A function that takes the arguments of `func`, the same on all processes, and returns the {result}. A "
    "sharded argument, a DTensor, reaches `func` whole. The first call with arguments of some shapes compares them, "
    "their values and the code of `func` between the processes; later calls send nothing.",
    raises={
        "ValueError": "An option is out of range, or what all processes must have in common differs. The message names "
        "the ranks.",
        "RuntimeError": "No process group is there, a process failed or does not answer, or torch cannot differentiate "
        "`func`. The message names the remedy.",
    },
)
