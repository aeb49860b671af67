"""Measures on a GPU and on its machine's processor, and writes JSON: `nox -s gpu`. Without a GPU it says so."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from _tools.bench.run import written
from _tools.gpu import effects, rates, turns
from _tools.gpu.studies import rows
from funcdiff.measure import compare, environment

ROUNDS = 12
BUDGET = 0.5  # seconds a call, beyond which one sample is enough


def study_rows(device: str, threads: int) -> list[dict[str, Any]]:
    """Each row of the studies, timed."""
    found = []
    for row in rows(device):
        times = compare(row.ways, *row.args, rounds=ROUNDS, budget=BUDGET, threads=threads, equal=False)
        found.append({"study": row.study, "name": row.name, "times": times.to_dict()})
        torch.cuda.empty_cache()
    return found


def driver() -> str | None:
    """The version of the GPU's driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no GPU, or not of this maker
        return None


def parts(seconds: float) -> dict[str, Callable[[], Any]]:
    """What is measured, by its name in the file; what needs a GPU stands last and is left out without one."""
    threads = torch.get_num_threads()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    everywhere: dict[str, Callable[[], Any]] = {}
    for device in reversed(devices):  # the GPU first: a run that is cut off has it
        everywhere[f"studies_{device}"] = lambda device=device: study_rows(device, threads)
        everywhere[f"winners_{device}"] = lambda device=device: list(turns.winner_map(device, threads))
        everywhere[f"growing_{device}"] = lambda device=device: list(turns.growing(device, threads))
    everywhere["rates"] = lambda: rates.run(devices[-1], seconds)
    if devices[-1] == "cpu":
        return everywhere
    return {"peaks": effects.peaks, "precision": effects.precision, "graphs": effects.graphs} | everywhere


def main(path: Path, seconds: float = 120) -> None:
    """Measure part after part, the file written after each, so that a run that is cut off leaves what it had."""
    if not torch.cuda.is_available():
        print("torch sees no GPU here: only the processor is measured")
    result: dict[str, Any] = {"environment": environment().to_dict(), "driver": driver(), "rounds": ROUNDS, "took": {}}
    for name, part in parts(seconds).items():
        print(name, flush=True)
        start = time.monotonic()
        result[name] = part()
        result["took"][name] = time.monotonic() - start
        path.write_text(written(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
