"""Hessians and Laplacians by second-order Taylor mode: one evaluation of the function carries all its derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from funcdiff._boundary import (
    Function,
    Tree,
    check_argnums,
    check_chunk_size,
    check_leaves,
    guarded,
    put,
    refuse_keywords,
    split_aux,
    take,
    wrap_argnums,
)
from funcdiff._passes import basis, in_turn, joined
from funcdiff._taylor.jets import Jet, Pairs, RefusedError, Sum, TensorJet, check_grad_mode
from funcdiff._taylor.layers import NORMS
from funcdiff.hessians import hessian_forward_over_reverse

Blocks = list[list[list[Tensor]]]  # for each output leaf, a matrix of blocks: a row and a column for each primal


def hessian_taylor(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Hessian by symmetric second-order Taylor mode.

    One evaluation carries the value, the n first derivatives and the n(n+1)/2 different second ones.
    """
    return _transform(_taylor_blocks, _composed_blocks, func, argnums, has_aux, chunk_size, randomness)


def laplacian(
    func: Function,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    randomness: str = "error",
) -> Function:
    """Sum of the second derivatives along all inputs, without the Hessian."""
    return _transform(_taylor_sums, _composed_sums, func, argnums, has_aux, chunk_size, randomness)


def _transform(
    taylor: Function,
    composed: Function,
    func: Function,
    argnums: int | tuple[int, ...],
    has_aux: bool,
    chunk_size: int | None,
    randomness: str,
) -> Function:
    """Taylor mode where every operation of func has a rule, else the composition; func's arguments -> the result."""
    check_argnums(argnums)
    check_chunk_size(chunk_size)
    check_randomness(randomness)

    @functools.wraps(func, updated=())
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        position = wrap_argnums(argnums, len(args))
        primals, in_spec = tree_flatten(take(args, position))
        check_leaves(primals, "differentiated argument")

        def run(*copies: Tree) -> Tree:
            specs = []

            def flat(*leaves: Tensor) -> tuple[list[Tensor], Tree]:
                returned = func(*put(copies, position, tree_unflatten(leaves, in_spec)))
                output, aux = split_aux(returned) if has_aux else (returned, ())
                outputs, spec = tree_flatten(output)
                check_leaves([_plain(leaf) for leaf in outputs], "output of func")
                specs.append(spec)
                return outputs, aux

            inputs = tree_flatten(take(copies, position))[0]
            try:
                results, aux = taylor(flat, inputs, chunk_size, randomness)
            except RefusedError:
                raise
            except Exception:  # whatever stops a jet, torch's own transforms decide; func's own errors come again
                results, aux = composed(flat, inputs, chunk_size, randomness)
            nested = [tree_map_blocks(result, in_spec) for result in results]
            result = tree_unflatten(nested, specs[-1])
            return (result, aux) if has_aux else result

        return guarded(run, args)

    return wrapper


def check_randomness(randomness: str) -> None:
    if randomness not in ("error", "same"):
        raise ValueError(
            f'expected randomness to be "error" or "same", got {randomness!r}: '
            "derivatives of different random draws make no Hessian"
        )


def tree_map_blocks(result: Any, in_spec: Any) -> Tree:
    if isinstance(result, Tensor):
        return result
    return tree_unflatten([tree_unflatten(row, in_spec) for row in result], in_spec)


def _taylor_blocks(flat: Function, primals: Sequence[Tensor], chunk_size: int | None, randomness: str) -> Any:
    sizes = [primal.numel() for primal in primals]
    n = sum(sizes)
    left, right = torch.triu_indices(n, n, device=primals[0].device)
    aux: list[Tree] = []

    def run(start: int, stop: int) -> list[Tensor]:
        used, runs = _runs(n, start, stop)
        seeds = basis(primals, 0, n)
        if len(used) < n:
            seeds = [seed[used] for seed in seeds]
        return _seconds(flat, primals, seeds, Pairs(runs), randomness, aux)

    seconds = joined(in_turn(run, left.numel(), chunk_size, randomness), left.numel())
    place = left.new_empty(n, n)
    place[left, right] = place[right, left] = torch.arange(left.numel(), device=left.device)

    def blocks(second: Tensor) -> list[list[Tensor]]:
        full = second[place].movedim((0, 1), (-2, -1))
        return [
            [
                block.reshape(*full.shape[:-2], *row.shape, *column.shape)
                for block, column in zip(part.split(sizes, -1), primals, strict=True)
            ]
            for part, row in zip(full.split(sizes, -2), primals, strict=True)
        ]

    return [blocks(second) for second in seconds], aux[-1]


def _runs(n: int, start: int, stop: int) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Pairs ``start`` to ``stop`` of all (i, j), i <= j, row by row: the directions in them, and the runs among these."""
    runs, row = [], 0
    for i in range(n):
        first, last = max(start, row), min(stop, row + n - i)
        if first < last:
            runs.append((i, i + first - row, i + last - row))
        row += n - i
    used = sorted({i for i, _, _ in runs}.union(*(range(first, last) for _, first, last in runs)))
    place = {direction: k for k, direction in enumerate(used)}
    return used, [(place[i], place[first], place[first] + last - first) for i, first, last in runs]


def _taylor_sums(flat: Function, primals: Sequence[Tensor], chunk_size: int | None, randomness: str) -> Any:
    n = sum(primal.numel() for primal in primals)
    aux: list[Tree] = []

    def run(start: int, stop: int) -> list[Tensor]:
        return _seconds(flat, primals, basis(primals, start, stop), Sum(), randomness, aux)

    parts = in_turn(run, n, chunk_size, randomness)
    return [functools.reduce(torch.add, (part[0] for part in some)) for some in zip(*parts, strict=True)], aux[-1]


def _seconds(
    flat: Function, primals: Sequence[Tensor], seeds: Sequence[Tensor], pairs: Pairs, randomness: str, aux: list[Tree]
) -> list[Tensor]:
    """Stacked second derivatives (q, *out) of each output along the pairs."""
    def evaluate(_: Tensor) -> list[Tensor]:
        make = Jet if torch.compiler.is_compiling() else TensorJet
        jets = [make(primal, seed, None, pairs) for primal, seed in zip(primals, seeds, strict=True)]
        outputs, extra = flat(*jets)
        aux.append(tree_map(_plain, extra))
        return [_second(output, pairs.count(seeds[0])) for output in outputs]

    # NOTE: this vmap over one dummy entry batches nothing. It makes torch apply `randomness`, and show custom autograd
    # functions, whose derivative need not be that of their formula, to the jets, which refuse them.
    return [second[0] for second in vmap(evaluate, randomness=randomness)(torch.empty(1))]


def _plain(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Jet) else leaf


def _second(output: Any, count: int) -> Tensor:
    if isinstance(output, Jet) and output.second is not None:
        return output.second
    return output.new_zeros((count, *output.shape))


def _composed_blocks(flat: Function, primals: Sequence[Tensor], chunk_size: int | None, randomness: str) -> Any:
    def watched(*leaves: Tensor) -> Any:
        with _Watch():
            outputs, aux = flat(*leaves)
        return tuple(outputs), aux

    every = tuple(range(len(primals)))
    transform = hessian_forward_over_reverse(
        watched, every, has_aux=True, chunk_size=chunk_size, randomness=randomness
    )
    return transform(*primals)


def _composed_sums(flat: Function, primals: Sequence[Tensor], chunk_size: int | None, randomness: str) -> Any:
    results, aux = _composed_blocks(flat, primals, chunk_size, randomness)

    def trace(blocks: Sequence[Sequence[Tensor]]) -> Tensor:
        squares = [
            rows[i].reshape(*rows[i].shape[: rows[i].dim() - 2 * primal.dim()], primal.numel(), primal.numel())
            for i, (rows, primal) in enumerate(zip(blocks, primals, strict=True))
        ]
        return functools.reduce(torch.add, (square.diagonal(0, -2, -1).sum(-1) for square in squares))

    return [trace(blocks) for blocks in results], aux


class _Watch(TorchFunctionMode):
    """In a composition, put right or refuse what torch differentiates silently wrong.

    NOTE [norms]. In torch 2.13 every composition gets the block d²/dweight dx of layer_norm and batch_norm wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.grad_enabled = torch.is_grad_enabled()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        check_grad_mode(self.grad_enabled)
        kwargs = kwargs or {}
        if func in NORMS:
            return NORMS[func](func, args, kwargs)
        name = getattr(func, "__name__", "").split(".")[0]
        if name in WRONG or (name.startswith("scatter_reduce") and "prod" in (*args, *kwargs.values())):
            raise RefusedError(
                f"torch differentiates {name} twice without an error but wrong: write it with simpler operations"
                "or use nn.functional's form of it, where there is one"
            )
        return func(*args, **kwargs)


WRONG = frozenset(
    """native_layer_norm native_batch_norm native_group_norm _native_batch_norm_legit _batch_norm_with_update batch_norm
    instance_norm cudnn_batch_norm index_reduce""".split()
)
