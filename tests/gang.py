"""Processes that are there for a whole file of tests, over gloo: to start them takes longer than most tests do."""

import contextlib
import datetime
import multiprocessing
import os
import tempfile
import traceback

import torch
import torch.distributed as dist

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch.distributed.fsdp", "funcdiff.distributed", "scipy.sparse.linalg"])


class Gang:
    """`size` processes of one group; `gang(func, *args)` calls `func(*args)` in each."""

    def __init__(self, size, timeout=60.0):
        self.folder = tempfile.TemporaryDirectory()
        self.processes, self.pipes = [], []
        for rank in range(size):
            ours, theirs = CONTEXT.Pipe()
            args = rank, size, f"{self.folder.name}/store", timeout, theirs
            process = CONTEXT.Process(target=member, args=args, daemon=True)
            process.start()
            self.processes.append(process)
            self.pipes.append(ours)

    def __call__(self, func, *args, patience=120.0):
        """What each returns, or its error; None of one that is gone."""
        for pipe in self.pipes:
            pipe.send((func, args))
        return [self._answer(pipe, patience) for pipe in self.pipes]

    @staticmethod
    def _answer(pipe, patience):
        assert pipe.poll(patience), "a process hangs"
        try:
            return pipe.recv()
        except EOFError:
            return None

    def close(self):
        for pipe in self.pipes:
            with contextlib.suppress(BrokenPipeError):
                pipe.send(None)
        for process in self.processes:
            process.join(10)
            process.kill()
        self.folder.cleanup()


def member(rank, size, store, timeout, pipe):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=timeout),
    )
    while (task := pipe.recv()) is not None:
        func, args = task
        torch.manual_seed(0)
        try:
            result = func(*args)
        except Exception as error:
            result = Failed(type(error).__name__, str(error), traceback.format_exc())
        pipe.send(result)
    os._exit(0)  # a broken group waits when it is destroyed


class Failed:
    """An error in a process."""

    def __init__(self, kind, text, trace):
        self.kind, self.text, self.trace = kind, text, trace

    def __repr__(self):
        return f"{self.kind}: {self.text}\n{self.trace}"


def passed(results):
    """The results, none of which is an error."""
    failed = [result for result in results if result is None or isinstance(result, Failed)]
    assert not failed, failed
    return results
