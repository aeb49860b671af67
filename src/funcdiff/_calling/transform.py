"""What makes a transform of a formula: arguments taken apart, copied and watched, and the result put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.arguments import (
    check_leaves,
    check_range,
    refuse_keywords,
    replace_args,
    select_args,
    with_aux,
)
from funcdiff._calling.lazy import refuse_lazy
from funcdiff._calling.options import Options
from funcdiff._calling.types import Formula, Function, Primals
from funcdiff._calling.wrapped import refuse_wrapped
from funcdiff._torch.compiler import alone, compiled, named_after, whole
from funcdiff._torch.messages import MUTATES, reraise
from funcdiff._torch.tensors import times_written
from funcdiff._torch.trees import Tree, TreeSpec, flatten, map_leaves, unflatten
from funcdiff._torch.versions import INFERENCE_SILENCES


def transform(formula: Formula, func: Function, options: Options, *, depth: int = 1) -> Function:
    """Make `formula`, which sees only flat tensors, a transform of `func` with torch.func's calling convention.

    `depth` counts how often the input's structure stands inside the output's: 0 for a Laplacian, once in a Jacobian,
    twice in a Hessian.
    """

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        check_range(options.argnums, len(args))
        refuse_lazy(func)
        refuse_wrapped(func, hooks=False)
        return known(*args)

    def known(*args: Tree) -> Tree:
        return guarded(run, args)

    def run(*copies: Tree) -> Tree:
        flat, primals = taken_apart(func, copies, options)
        results, *aux = formula(flat, primals, options)
        nested = unflatten([nest(result, flat.spec, depth) for result in results], flat.out_spec)
        return (nested, *aux) if aux else nested

    wrapper.known = known  # type: ignore[attr-defined]  # for who has looked at func and the arguments already
    return wrapper


def taken_apart(func: Function, args: Sequence[Tree], options: Options) -> tuple[FlatFunction, Primals]:
    """`func` as a function of its differentiated leaves alone, and these leaves."""
    primals, spec = flatten(select_args(args, options.argnums))
    check_leaves(primals, "differentiated argument")

    def call(selected: Tree) -> Tree:
        return func(*replace_args(args, options.argnums, selected))

    alone = len(args) == 1 and type(options.argnums) is int
    return FlatFunction(func if alone else call, spec, options.has_aux), tuple(primals)


class FlatFunction:
    """A function of one tree as a function of the tree's leaves; what it returns is checked."""

    out_spec: TreeSpec  # the structure of the last output

    def __init__(self, call: Callable[[Tree], Tree], spec: TreeSpec, has_aux: bool = False) -> None:
        self.call, self.spec, self.has_aux = call, spec, has_aux

    def __call__(self, *leaves: Tensor) -> Tree:
        returned = self.call(unflatten(leaves, self.spec))
        output = with_aux(returned)[0] if self.has_aux else returned
        outputs, self.out_spec = flatten(output)
        if [leaf for leaf in outputs if type(leaf) is not Tensor]:  # of a jet, which compiled is no tensor, its value
            jets = Tensor if not torch.compiler.is_compiling() else object
            outputs = [getattr(leaf, "value", leaf) if isinstance(leaf, jets) else leaf for leaf in outputs]
        check_leaves(outputs, "output of func")
        return returned


def nest(blocks: Any, spec: TreeSpec, depth: int) -> Tree:
    """Lists in lists of tensors as trees in trees."""
    if depth > 1:
        blocks = [nest(block, spec, depth - 1) for block in blocks]
    return unflatten(blocks, spec) if depth else blocks


@whole
def guarded(run: Function, args: Sequence[Tree]) -> Tree:
    """`run` on copies of `args`: the caller's tensors stay as they are, and torch's refusals come with a remedy.

    NOTE [copies]. Forward mode writes through to the caller's tensor where func works in place, cannot start from an
    expanded tensor, and autograd cannot save an inference tensor. A copy, of inputs only, cures all three, and its
    version counter tells whether func wrote into it.
    """
    if torch.compiler.is_compiling():
        return compiled(run, tuple(map(copied, args)))
    if INFERENCE_SILENCES and torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():  # no graph, as nothing in inference mode has one
            return guarded(run, args)
    copies = tuple([arg.clone() if isinstance(arg, Tensor) else copied(arg) for arg in args])
    watched = [leaf for leaf in flatten(copies)[0] if isinstance(leaf, Tensor) and not leaf.is_inference()]
    before = times_written(watched)
    try:
        result = alone(run, copies)
    except RuntimeError as error:
        reraise(error)
    if before != times_written(watched):
        raise RuntimeError(MUTATES)
    return result


def copied(tree: Tree) -> Tree:
    if isinstance(tree, Tensor):
        return tree.clone()
    return map_leaves(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)
