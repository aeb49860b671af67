"""What makes a transform of a recipe: arguments taken apart, copied, and watched."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.arguments import (
    aux_apart,
    check_argnums,
    check_chunk_size,
    check_leaves,
    check_range,
    refuse_keywords,
    replace_args,
    select_args,
)
from funcdiff._calling.types import Derivative, Flat, Function, Primals
from funcdiff._torch.messages import MUTATES, reraise
from funcdiff._torch.tensors import times_written
from funcdiff._torch.trees import Tree, flatten, tree_map_only, unflatten


def differentiate(
    derivative: Callable[[Flat, Primals], Derivative],
    func: Function,
    argnums: int | tuple[int, ...],
    has_aux: bool,
    chunk_size: int | None,
) -> Function:
    """Make `derivative`, which sees only flat tensors, a transform with torch.func's calling convention."""
    check_argnums(argnums)
    check_chunk_size(chunk_size)

    @functools.wraps(func, updated=())
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        check_range(argnums, len(args))
        primals, in_spec = flatten(select_args(args, argnums))
        check_leaves(primals, "differentiated argument")

        def run(*copies: Tree) -> Tree:
            def flat(*leaves: Tensor) -> Tree:
                returned = func(*replace_args(copies, argnums, unflatten(leaves, in_spec)))
                output = aux_apart(returned)[0] if has_aux else returned
                check_leaves(flatten(output)[0], "output of func")
                return returned

            blocks, out_spec, aux = derivative(flat, tuple(flatten(select_args(copies, argnums))[0]))
            result = unflatten([unflatten(row, in_spec) for row in blocks], out_spec)
            return (result, *aux) if has_aux else result

        return guarded(run, args)

    return wrapper


def guarded(run: Function, args: Sequence[Tree]) -> Tree:
    """`run` on copies of `args`: the caller's tensors stay as they are, and torch's refusals come with a remedy.

    NOTE [copies]. Forward mode writes through to the caller's tensor where func works in place, cannot start from an
    expanded tensor, and autograd cannot save an inference tensor. A copy, of inputs only, cures all three, and its
    version counter tells whether func wrote into it.
    """
    copies = tuple(copied(arg) for arg in args)
    if torch.compiler.is_compiling():
        return run(*copies)
    before = writes(copies)
    try:
        result = run(*copies)
    except RuntimeError as error:
        reraise(error)
    if writes(copies) > before:
        raise RuntimeError(MUTATES)
    return result


def copied(arg: Tree) -> Tree:
    return arg.clone() if isinstance(arg, Tensor) else tree_map_only(Tensor, Tensor.clone, arg)


def writes(copies: Sequence[Tree]) -> int:
    """How often the tensors were written to; inference tensors do not count."""
    count = 0
    for copy in copies:
        for leaf in flatten(copy)[0]:
            if isinstance(leaf, Tensor) and not leaf.is_inference():
                count += times_written(leaf)
    return count
