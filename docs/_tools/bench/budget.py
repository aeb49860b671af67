"""A Jacobian within a budget of bytes: counted, and by the peak of this process, which therefore does nothing else.

In docs: python -m _tools.bench.budget SOURCES TIMES BUDGET
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import funcdiff as fd
from funcdiff.measure import count

Map = Callable[[Tensor], Tensor]


def detector(sources: int, times: int, **kind: Any) -> tuple[Map, Map]:
    """What a detector sums over a grid of times, of as many sources as signals; and its Jacobian by hand.

    `kind` is the device and the dtype, as factories take them.
    """
    mix = torch.ones(sources, sources, **kind).tril() / sources
    grid = torch.linspace(0, 1, times, **kind)

    def signal(x: Tensor) -> Tensor:
        phase = (mix @ x)[:, None] * grid
        return (phase.sin() * phase.cos()).mean(1)

    def slope(x: Tensor) -> Tensor:
        return torch.cos(2 * (mix @ x)[:, None] * grid).mul(grid).mean(1)[:, None] * mix

    return signal, slope


def run(sources: int, times: int, budget: float) -> dict[str, Any]:
    """Bytes that the chosen recipe takes all at once and in its chunks, and those that this process took for them."""
    signal, slope = detector(sources, times)
    warm, _ = detector(8, times)
    fd.jacobian(warm, chunk_size="auto", budget=budget)(torch.randn(8))  # what torch sets up once
    x = torch.randn(sources)
    transform = fd.jacobian(signal, chunk_size="auto", budget=budget)
    before, start = _peak(), time.perf_counter()
    jacobian = transform(x)
    took, seconds = _peak() - before, time.perf_counter() - start
    torch.testing.assert_close(jacobian, slope(x))
    plan = fd.explain(transform, x).plan.candidates[0]
    on_meta = getattr(fd, plan.name)(detector(sources, times, device="meta")[0])
    return {
        "recipe": plan.name,
        "shape": [sources, sources],
        "chunk": plan.chunk,
        "budget": budget,
        "at_once": count(on_meta, torch.empty(sources, device="meta")).peak_bytes,
        "counted": plan.peak,
        "process": took,
        "seconds": seconds,
    }


def run_alone(sources: int, times: int, budget: float) -> dict[str, Any]:
    """The same in a process of its own, whose allocator gives freed memory back, as the count has it."""
    command = [sys.executable, "-m", __name__, *map(str, (sources, times, budget))]
    allocator = {
        "MALLOC_TRIM_THRESHOLD_": "1048576",  # glibc's; by itself it keeps 64 MiB and more
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # fetched again in large pages: half the time, the same peak
    }
    docs = Path(__file__).parents[2]  # from where this module can be imported
    done = subprocess.run(command, cwd=docs, env=os.environ | allocator, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _peak() -> int:
    """The most bytes that this process held so far; on Linux it inherits ru_maxrss from the one that started it."""
    if sys.platform == "linux":
        return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
