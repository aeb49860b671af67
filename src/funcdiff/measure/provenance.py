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
    """The machine and the software on which something is measured.

    Attributes:
        processor: The name of the processor.
        accelerator: The name of the GPU or other accelerator that torch uses, if there is one.
        cores: The number of processor cores that this process may use.
        threads: The number of threads that torch uses.
        torch: The version of torch.
        build: What torch was built with: the linear algebra library and the instruction set.
        python: The version of Python.
        platform: The operating system.
        dtype: The default dtype of torch.
        date: The date and time in UTC, in ISO 8601.
        commit: The commit of the checkout from which funcdiff is imported, if there is one. A ``+`` means that files
            were changed.
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
        """Return the fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Environment":
        """Make an environment from what `to_dict` returned."""
        return cls(**values)

    def table(self) -> Table:
        """Return the fields that are not empty as a table."""
        return Table(("environment", ""), tuple((name, str(value)) for name, value in asdict(self).items() if value))


def environment() -> Environment:
    """Describe the machine and the software in use.

    Example:
        >>> import torch
        >>> from funcdiff.measure import environment
        >>> environment().threads == torch.get_num_threads()
        True

    Returns:
        An `Environment`. Print it to see a table.
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
