"""Measures on a GPU and on its machine's processor, and writes JSON: `nox -s gpu`. Without a GPU it says so."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
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


def parts(seconds: float, gpu: str | None) -> dict[str, Callable[[], Any]]:
    """What is measured, by its name in the file: on the device `gpu`, if there is one, and on the processor."""
    threads = torch.get_num_threads()
    devices = {"cuda": gpu, "cpu": "cpu"} if gpu else {"cpu": "cpu"}  # the GPU first: a run that is cut off has it
    everywhere: dict[str, Callable[[], Any]] = {}
    for name, device in devices.items():
        everywhere[f"studies_{name}"] = lambda device=device: study_rows(device, threads)
        everywhere[f"winners_{name}"] = lambda device=device: list(turns.winner_map(device, threads))
        everywhere[f"growing_{name}"] = lambda device=device: list(turns.growing(device, threads))
    everywhere["rates"] = lambda: rates.run(gpu or "cpu", seconds)
    if not gpu:
        return everywhere
    of_gpus = {part.__name__: partial(part, gpu) for part in (effects.peaks, effects.precision, effects.graphs)}
    return of_gpus | everywhere


def main(path: Path, gpu: str | None, seconds: float = 120) -> None:
    """Measure part after part, the file written after each, so that a run that is cut off leaves what it had."""
    if not gpu:
        print("torch sees no GPU here: only the processor is measured")
    result: dict[str, Any] = {"environment": environment().to_dict(), "driver": driver(), "rounds": ROUNDS, "took": {}}
    for name, part in parts(seconds, gpu).items():
        print(name, flush=True)
        start = time.monotonic()
        result[name] = part()
        result["took"][name] = time.monotonic() - start
        path.write_text(written(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "cuda" if torch.cuda.is_available() else None, *map(float, sys.argv[2:]))
