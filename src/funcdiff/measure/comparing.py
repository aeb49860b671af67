"""Time several ways of computing one thing against each other."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from funcdiff._torch.trees import tree_leaves
from funcdiff.measure.agreement import check_agreement
from funcdiff.measure.comparison import Comparison, Timing
from funcdiff.measure.counting import count_each
from funcdiff.measure.provenance import environment
from funcdiff.measure.ratios import CONFIDENCE, FEWEST_ROUNDS
from funcdiff.measure.recording import recorded
from funcdiff.measure.timing import Call, interleaved, quiet, settled, timed


def compare(
    candidates: Mapping[str, Callable[..., Any]],
    *args: Any,
    rounds: int = 25,
    threads: int = 1,
    budget: float | None = None,
    seed: int = 0,
    equal: bool = True,
    costs: bool = False,
) -> Comparison:
    """Time several functions side by side on the same arguments, and compute how many times faster each is.

    Print the result to see a table with one line for each function: its median time, and how many times as long it
    takes as the fastest one, with a 99 % interval. Before the first round, the results of all functions are compared.

    Example:
        >>> import torch
        >>> from funcdiff.measure import compare
        >>> x = torch.linspace(0, 1, 8)
        >>> comparison = compare({"square": torch.square, "product": lambda x: x * x}, x, rounds=8)
        >>> sorted(comparison), comparison["square"].n
        (['product', 'square'], 8)
        >>> 0 < comparison["square"].median < 1  # the median time, in seconds
        True

    Args:
        candidates: The functions to time: a dictionary from names to functions. Each is called as ``candidate(*args)``.
        *args: The arguments of all candidates.
        rounds: The number of samples of each candidate, at least 8.
        threads: The number of threads that torch uses during the measurement.
        budget: A number of seconds. A candidate whose first two calls both take longer is timed only once.
        seed: The seed of the random order within each round.
        equal: Whether the results of all candidates must agree before the first round. The tolerance is the square root
            of the precision of the dtype.
        costs: Whether to count the FLOPs, the operations and the memory of each candidate too, as `count` does.

    Returns:
        A `Comparison`. Print it to see a table: the median time of each candidate, and its ratio to the fastest with a
        99 % interval. `comparison["square"].median` is a time in seconds.

    Raises:
        ValueError: There is no candidate, an option has a value that is not allowed, or the results of two candidates
            differ.

    Method:
        Each round times every candidate once, in random order, so that a slow phase of the machine affects all of them.
        The ratio of two candidates is taken in each round, and its median is shown. A short call is repeated until the
        clock can measure it, after one call that is not timed. Garbage collection is off, and a GPU has finished before
        the time is read.

        The first call of each candidate is shown separately. Its result is the one that is compared with the others. It
        takes longer than later calls if it has to compile or to choose a method. A candidate that you called before has
        already done this, so its first call here takes about as long as the others.
    """
    return recorded(
        measure(candidates, *args, rounds=rounds, threads=threads, budget=budget, seed=seed, equal=equal, costs=costs)
    )


def measure(
    candidates: Mapping[str, Callable[..., Any]],
    *args: Any,
    rounds: int,
    threads: int,
    budget: float | None,
    seed: int,
    equal: bool,
    costs: bool,
) -> Comparison:
    """Do what `compare` says, without recording it."""
    check_options(candidates, rounds=rounds, threads=threads, budget=budget)
    names = list(candidates)
    calls = [partial(candidates[name], *args) for name in names]
    shuffle = random.Random(seed)
    with quiet(threads):
        where = environment()
        firsts = first_calls(names, calls, equal=equal)
        samplings = [settled(call, first, budget) for call, first in zip(calls, firsts, strict=True)]
        running = [i for i, sampling in enumerate(samplings) if sampling.over is None]
        orders = [shuffle.sample(running, len(running)) for _ in range(rounds)]
        samples = interleaved(calls, samplings, orders)
    timings = {
        name: Timing(tuple(times) if over is None else (over,), count, first, cut_off=over is not None)
        for name, first, (count, _, over), times in zip(names, firsts, samplings, samples, strict=True)
    }
    counted = count_each(candidates, *args) if costs else None
    return Comparison(timings, threads, describe(args), where, counted)


def first_calls(names: Sequence[str], calls: Sequence[Call], *, equal: bool) -> list[float]:
    """Time each candidate's first call, and raise if its result differs from the first candidate's."""
    firsts = []
    for name, call in zip(names, calls, strict=True):
        duration, result = timed(call)
        firsts.append(duration)
        if name == names[0]:
            expected = result
        elif equal:
            check_agreement(names[0], expected, name, result)
    return firsts


def check_options(
    candidates: Mapping[str, Callable[..., Any]], *, rounds: int, threads: int, budget: float | None
) -> None:
    """Raise if there is nothing to compare or an option is out of range."""
    if not candidates:
        raise ValueError("expected at least one candidate, as {'name': function}; got none")
    if rounds < FEWEST_ROUNDS:
        raise ValueError(
            f"expected rounds >= {FEWEST_ROUNDS}, which an interval of {CONFIDENCE:.0%} needs, got {rounds}. "
            "If a candidate is slow, set a budget instead"
        )
    if threads < 1:
        raise ValueError(f"expected threads >= 1, got {threads}")
    if budget is not None and budget <= 0:
        raise ValueError(f"expected a budget above 0 seconds, or None for no limit; got {budget}")


def describe(args: tuple[Any, ...]) -> tuple[str, ...]:
    """Name the dtype and shape of each tensor among the arguments."""
    return tuple(
        f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
        for leaf in tree_leaves(args)
        if isinstance(leaf, torch.Tensor)
    )
