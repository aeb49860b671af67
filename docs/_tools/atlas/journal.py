"""What was judged so far, a line a case: a run that was stopped goes on, and a case that ends the process is told."""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from _tools.atlas.cases import Key
from _tools.atlas.data import Entry

_LIMIT = 900  # seconds for a case
ENDS = "ends the process, or takes longer than a quarter of an hour"

Judge = Callable[[Key], Entry]
Pool = Callable[[int], ProcessPoolExecutor]


class Journal:
    """A file of entries under a heading that says what was asked; one with another heading is begun anew."""

    def __init__(self, path: Path, heading: dict[str, Any]) -> None:
        self.path = path
        first, *lines = path.read_text().splitlines() if path.exists() else [""]
        if first != json.dumps(heading):
            lines = []
            path.write_text(json.dumps(heading) + "\n")
        self.entries: dict[Key, Entry] = {(e["kind"], e["name"]): e for e in map(json.loads, lines)}

    def add(self, entry: Entry) -> None:
        """Keep a finished entry."""
        self.entries[entry["kind"], entry["name"]] = entry
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def each(self, judge: Judge, keys: Iterable[Key], pool: Pool, processes: int) -> Iterator[Entry]:
        """The entries of these cases in order; those that are lacking are judged by so many processes."""
        keys = list(keys)
        while lacking := [key for key in keys if key not in self.entries]:
            if not self._finished(judge, lacking, pool, processes):
                # One of those at work has ended its process: each alone.
                for key in lacking[: 2 * processes + 1]:
                    if key not in self.entries and not self._finished(judge, [key], pool, 1):
                        self.add(_ended(key))
        return (self.entries[key] for key in keys)

    def _finished(self, judge: Judge, keys: Sequence[Key], pool: Pool, processes: int) -> bool:
        """Whether all could be judged without a process that ended."""
        try:
            with pool(processes) as workers:
                for future in as_completed([workers.submit(_within_limit, judge, key) for key in keys]):
                    self.add(future.result())
        except BrokenProcessPool:
            return False
        return True

    def close(self) -> None:
        """Remove the file: everything is elsewhere now."""
        self.path.unlink()


def _within_limit(judge: Judge, key: Key) -> Entry:
    faulthandler.dump_traceback_later(_LIMIT, exit=True)
    try:
        return judge(key)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _ended(key: Key) -> Entry:
    return {"kind": key[0], "name": key[1], "samples": [], "moving": [], "operators": [], "reason": ENDS}
