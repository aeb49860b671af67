"""The processes of a group: what they must agree on, the sums they make, and which of them is missing when one fails.

NOTE [together]. A process that raises alone leaves the others waiting for it. So an error is kept until the next
collective, which tells all processes of it, and then raised by every one.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from funcdiff._torch.messages import RefusedError
from funcdiff._torch.processes import all_gather_single, device_of, running, store_of, timeout_of
from funcdiff._torch.transforms import plain_allowed
from funcdiff.distributed.digests import number

_GRACE = 1.0  # seconds in which the processes that are left report; at most an eighth of the timeout
TAIL = 1 + 32  # numbers after a sum: how many processes failed, and how many have each bit of a digest set


class Processes:
    """The processes of a group, and the name of the call that they make together.

    Attributes:
        rank: The rank of this process in the group.
        size: The number of processes.
    """

    def __init__(self, group: Any, call: str) -> None:
        """Find the group."""
        if not running():
            raise RuntimeError(
                f"{call} expects an initialised process group. Call torch.distributed.init_process_group() first, in "
                "each process, and start them with torchrun."
            )
        self.group: Any = group or dist.group.WORLD
        self.call = call
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError(f"{call} expects a group of which this process, rank {dist.get_rank()}, is a member")
        self.device = device_of(self.group)

    def agree(self, facts: Mapping[str, str], error: Exception | None = None, count: int = 0) -> list[int]:
        """Compare facts, and tell of an error: one small all-gather. Return the `count` of each process.

        Raises:
            ValueError: A process has other facts. The message says which and where.
            RuntimeError: Another process has an error, or does not answer. An error of this process is raised as it is.
        """
        row = [error is not None, count, *map(number, (self.call, *facts.values()))]
        table = torch.empty(self.size, len(row), dtype=torch.int64, device=self.device)
        mine = torch.tensor([row], dtype=torch.int64, device=self.device)
        self._wait(lambda: all_gather_single(table, mine, self.group, async_op=True))
        failed, counts, *columns = table.T.tolist()
        if any(failed):
            self._raise_together(error)
        for name, column in zip(("call", *facts), columns, strict=True):
            if len(set(column)) > 1:
                self._refuse(name, {"call": self.call, **facts}[name])
        return [int(count) for count in counts]

    def sum(self, vector: Tensor, digest: int, error: Exception | None = None) -> Tensor:
        """The sum of all processes' vectors, bit by bit the same on each: one all-reduce.

        The last `TAIL` numbers of `vector` are free. They carry whether a process failed, and the bits of a digest of
        what all processes must have passed: each bit is set on none of them or on all.
        """
        bits = [float(digest >> i & 1) for i in range(TAIL - 1)]
        vector[-TAIL:] = vector.new_tensor([float(error is not None), *bits])
        self._wait(lambda: dist.all_reduce(vector, group=self.group, async_op=True))
        failed, *sums = vector[-TAIL:].tolist()
        if failed:
            self._raise_together(error)
        if any(count not in (0.0, float(self.size)) for count in sums):
            self._refuse("tangents", f"numbers with the digest {digest:08x}")
        return vector[:-TAIL]

    def gather(self, tree: Callable[[], Any]) -> Any:
        """What `tree` returns, which calls collectives of its own."""
        try:
            return tree()
        except RuntimeError as error:
            self._lost(error)

    def _wait(self, start: Callable[[], Any]) -> None:
        timeout = timeout_of(self.group, self.device)
        try:
            start().wait(timeout - datetime.timedelta(seconds=2 * self._grace(timeout)))
        except RuntimeError as error:
            self._lost(error)

    def _grace(self, timeout: datetime.timedelta) -> float:
        return min(_GRACE, timeout.total_seconds() / 8)

    def _lost(self, error: RuntimeError) -> NoReturn:
        """Say which processes are missing: those that do not report where the group met."""
        timeout = timeout_of(self.group, self.device)
        try:
            store = store_of(self.group)
            failures, end = store.add(str(self.rank), 1), time.monotonic() + self._grace(timeout)
            missing = list(range(self.size))
            while missing and time.monotonic() < end:
                time.sleep(0.02)
                missing = [rank for rank in missing if store.add(str(rank), 0) < failures]
            told = f"{self._named(missing)} did not take part" if missing else "the others stopped waiting"
            if len(missing) > 1:  # who is not next to the one that is gone may not know yet
                told = f"at least one of {self._named(missing)} did not take part, and the others may still wait"
        except RuntimeError:  # the store lies in a process, often that of rank 0
            told = "and neither does the store of the group, which often lies in the process of rank 0"
        raise RuntimeError(
            f"{self.call} on rank {dist.get_rank()}: {told}. The process ended, hangs, or makes another call. Look at "
            f"its own error first; the group waits {timeout}. torch said: {error}"
        ) from error

    def _named(self, ranks: Sequence[int]) -> str:
        told = ", ".join(str(dist.get_global_rank(self.group, rank)) for rank in ranks)
        return f"rank {told}" if len(ranks) == 1 else f"ranks {told}"

    def _texts(self, text: str) -> list[str]:
        texts: list[str] = [""] * self.size
        self.gather(lambda: dist.all_gather_object(texts, text, self.group))
        return texts

    def _raise_together(self, error: Exception | None) -> NoReturn:
        texts = self._texts(f"{type(error).__name__}: {error}" if error else "")
        if error:
            raise error
        told = "; ".join(f"{self._named([rank])} with {text}" for rank, text in enumerate(texts) if text)
        raise RuntimeError(f"{self.call} failed on {told}")

    def _refuse(self, name: str, mine: str) -> NoReturn:
        texts = self._texts(mine)
        kinds = {text: [rank for rank in range(self.size) if texts[rank] == text] for text in texts}
        told = "; ".join(f"{self._named(ranks)}: {text}" for text, ranks in kinds.items())
        raise ValueError(f"{self.call} expects the same {name} on every rank, got {told}")


def refuse_inside(call: str) -> None:
    """Stop where no collective can be called."""
    if not plain_allowed():
        raise RefusedError(
            f"{call} communicates, which vmap, grad, jvp, torch.compile and inference mode do not support. Call it "
            "outside of them"
        )
