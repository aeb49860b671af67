"""Where the time of a call goes, by Python's own profiler."""

from __future__ import annotations

import cProfile
import pstats
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import funcdiff

SECONDS = 0.5  # of calls to profile
SHOWN = 6  # places, the dearest first
LOOKING_UP = tuple(("_automatic", file) for file in ("lookup.py", "cache.py", "describing.py", "naming.py"))
TORCH, OURS = (Path(package.__file__ or "").parent for package in (torch, funcdiff))


def profile(way: Callable[..., Any], *args: Any) -> dict[str, float]:
    """The share of each place in the time of `way(*args)`, the largest ones."""
    way(*args)
    profiler, end = cProfile.Profile(), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        profiler.runcall(way, *args)
    spent: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]  # typeshed lacks it
        spent[place(file, name)] += own
    total = spent.total()
    return {where: seconds / total for where, seconds in spent.most_common(SHOWN)}


def place(file: str, name: str) -> str:
    """The part of the code that a function belongs to; compiled functions stand for themselves."""
    if file == "~":
        return re.sub(r"[<>']|built-in|method| of .*| at 0x.*", "", name).strip()
    if OURS in Path(file).parents:
        return "looking the plan up" if Path(file).parts[-2:] in LOOKING_UP else "the rest of funcdiff"
    return "torch's Python" if TORCH in Path(file).parents else "func, and Python's library"
