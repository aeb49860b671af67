"""One evaluation of a function on jets, or one for each chunk of second derivatives."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.arguments import apart
from funcdiff._calling.directions import basis, gathered, in_turn
from funcdiff._calling.options import Options
from funcdiff._calling.types import Blocks, Derivative, Flat, Primals
from funcdiff._jets.jet import Jet, disguise, jet_of, plain
from funcdiff._jets.pairs import Diagonal, Mixed, Pairs, Sum
from funcdiff._torch.transforms import batched
from funcdiff._torch.trees import Tree, flatten, map_leaves


def jacobians(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The Jacobian of each output of `flat`, a block for each primal."""
    return _by_direction(Pairs(), flat, primals, options)


def diagonals(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The diagonal of the Hessian of each output of `flat`, a block for each primal."""
    return _by_direction(Diagonal(), flat, primals, options)


def _by_direction(pairs: Pairs, flat: Flat, primals: Primals, options: Options) -> Derivative:
    sizes = [primal.numel() for primal in primals]
    aux: list[Sequence[Tree]] = []

    def run(start: int, stop: int) -> list[Tensor]:
        return _evaluate(flat, primals, basis(primals, start, stop), pairs, options, aux)

    stacks = gathered(run, sum(sizes), options)
    results = [
        [
            part.reshape((*stack.shape[1:], *primal.shape))
            for part, primal in zip(torch.split(stack.movedim(0, -1), sizes, -1), primals, strict=True)
        ]
        for stack in stacks
    ]
    return results, *aux[-1]


def hessians(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The Hessian of each output of `flat`."""
    sizes = [primal.numel() for primal in primals]
    n = sum(sizes)
    left, right = torch.triu_indices(n, n, device=primals[0].device)
    count = left.numel()
    aux: list[Sequence[Tree]] = []

    def run(start: int, stop: int) -> list[Tensor]:
        used, runs = _runs(n, start, stop)
        seeds, rows, columns = basis(primals, 0, n), left[start:stop], right[start:stop]
        if len(used) < n:
            seeds = [seed[used] for seed in seeds]
            rows, columns = (torch.searchsorted(left.new_tensor(used), some) for some in (rows, columns))
        return _evaluate(flat, primals, seeds, Mixed(runs, rows, columns), options, aux)

    seconds = gathered(run, count, options)
    place = left.new_empty(n, n)
    place[left, right] = place[right, left] = torch.arange(count, device=left.device)

    def blocks(second: Tensor) -> Blocks:
        full = second[place].movedim((0, 1), (-2, -1))
        return [
            [
                block.reshape((*full.shape[:-2], *row.shape, *column.shape))
                for block, column in zip(torch.split(part, sizes, -1), primals, strict=True)
            ]
            for part, row in zip(torch.split(full, sizes, -2), primals, strict=True)
        ]

    return [blocks(second) for second in seconds], *aux[-1]


def laplacians(flat: Flat, primals: Primals, options: Options) -> Derivative:
    """The Laplacian of each output of `flat`."""
    aux: list[Sequence[Tree]] = []

    def run(start: int, stop: int) -> list[Tensor]:
        return _evaluate(flat, primals, basis(primals, start, stop), Sum(), options, aux)

    parts = in_turn(run, sum(primal.numel() for primal in primals), options)
    return [functools.reduce(torch.add, some)[0] for some in zip(*parts, strict=True)], *aux[-1]


def probe(flat: Flat, primals: Sequence[Tensor], randomness: str) -> None:
    """Send one jet through `flat`, to see whether each of its operations has a rule."""
    zero = torch.zeros(1, dtype=torch.long, device=primals[0].device)
    _evaluate(flat, primals, basis(primals, 0, 1), Mixed([(0, 0, 1)], zero, zero), Options(randomness=randomness), [])


def _runs(n: int, start: int, stop: int) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Pairs `start` to `stop` of all (i, j), i <= j, row by row: the directions in them, and the runs."""
    runs, row = [], 0
    for i in range(n):
        first, last = max(start, row), min(stop, row + n - i)
        if first < last:
            runs.append((i, i + first - row, i + last - row))
        row += n - i
    used = sorted({i for i, _, _ in runs}.union(*(range(first, last) for _, first, last in runs)))
    place = {direction: k for k, direction in enumerate(used)}
    return used, [(place[i], place[first], place[first] + last - first) for i, first, last in runs]


def _evaluate(
    flat: Flat,
    primals: Sequence[Tensor],
    seeds: Sequence[Tensor],
    pairs: Pairs,
    options: Options,
    aux: list[Sequence[Tree]],
) -> list[Tensor]:
    """The derivatives (k, *out) of each output that `pairs` asks for; the aux, if there is one, goes into `aux`."""

    def run(_: Tensor) -> list[Tensor]:
        jets = [disguise(Jet(primal, seed, None, pairs)) for primal, seed in zip(primals, seeds, strict=True)]
        output, *extra = apart(flat(*jets), options.has_aux)
        aux.append(map_leaves(plain, extra))
        return [_asked_for(jet_of(leaf), pairs, seeds[0]) for leaf in flatten(output)[0]]

    # NOTE [dummy vmap]. Nothing is batched over this one entry. It makes torch apply `randomness`, and hand over custom
    # autograd functions, whose derivative need not be that of their formula: they have no rule.
    return [stack[0] for stack in batched(run, options.randomness)(torch.empty(1, device=primals[0].device))]


def _asked_for(output: Any, pairs: Pairs, seed: Tensor) -> Tensor:
    stack = (output.second if pairs.curved else output.first) if isinstance(output, Jet) else None
    if stack is not None:
        return stack
    value: Tensor = plain(output)
    return value.new_zeros((pairs.count(seed), *value.shape))
