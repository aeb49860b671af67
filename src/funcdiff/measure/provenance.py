"""Where a measurement was made."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch

from funcdiff._tables import Shown, Table


@dataclass(frozen=True, repr=False)
class Environment(Shown):
    """The machine and the software that a measurement depends on.

    Attributes:
        processor: Model name of the processor.
        accelerator: Name of the accelerator that torch sees, if any.
        cores: Processor cores this process may use.
        threads: Threads torch computes with.
        torch: torch's version.
        build: What torch was built with: its linear algebra and its instruction set.
        python: Python's version.
        platform: Operating system.
        dtype: torch's default dtype.
        date: UTC, ISO 8601, to the second.
        commit: Commit of the checkout that funcdiff is imported from, if it is one; a ``+`` marks changed files.
    """

    kind: ClassVar[str] = "environment"
    processor: str
    accelerator: str | None
    cores: int
    threads: int
    torch: str
    build: str
    python: str
    platform: str
    dtype: str
    date: str
    commit: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Environment":
        """Rebuild what `to_dict` wrote."""
        return cls(**values)

    def table(self) -> Table:
        """Return the fields that are set, one a row."""
        return Table(("environment", ""), tuple((name, str(value)) for name, value in asdict(self).items() if value))


def environment() -> Environment:
    """Describe the machine and the software now in use.

    Returns:
        The provenance of what is measured now.

    >>> environment().threads == torch.get_num_threads()
    True
    """
    return Environment(
        processor=_processor(),
        accelerator=_accelerator(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        build=_build(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        dtype=str(torch.get_default_dtype()).removeprefix("torch."),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(),
    )


@cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else None  # type: ignore[union-attr] # an available accelerator is not None


@cache
def _build() -> str:
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    algebra = blas[1] if blas else "unknown"
    return f"BLAS {algebra}, {torch.backends.cpu.get_cpu_capability()}, CUDA {torch.version.cuda or 'none'}"


@cache
def _commit() -> str | None:
    here = Path(__file__)
    git = ("git", "-C", str(here.parent))
    if _output(*git, "ls-files", "--error-unmatch", here.name) is None:  # installed, not a checkout of ours
        return None
    changed = "+" if _output(*git, "status", "--porcelain") else ""
    return f"{_output(*git, 'rev-parse', 'HEAD')}{changed}"


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
