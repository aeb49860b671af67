"""The choice under torch.compile, which runs these functions when it compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._automatic import lookup
from funcdiff._automatic.lookup import Choice
from funcdiff._calling.arguments import select_args, with_aux
from funcdiff._calling.options import Options
from funcdiff._calling.types import Function
from funcdiff._safety.obstacles import numbers_like
from funcdiff._safety.verification import Kind
from funcdiff._torch import compiler_graph
from funcdiff._torch.compiler import compiled, run_while_compiling, settled, whole
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.trees import Tree, flatten, unflatten

EAGERLY = "not compiled"
ROWS = 100  # supposed of every batch: with a number of its own, each would be compiled anew
Spec = tuple[tuple[int, ...], torch.dtype, str]


@whole
def run(
    func: Function,
    choice: Choice,
    args: Sequence[Tree],
    planned: Callable[..., str] | None,
    recipe: Callable[..., Tree],
    eager: Callable[[Sequence[Tree]], Tree],
) -> Tree:
    """The planned recipe in the compiler's graph, or all of it without the compiler."""
    if not torch.compiler.is_compiling():  # the graph has broken
        return eager(args)
    chosen = name(func, choice, args, planned)
    return eager(args) if chosen == EAGERLY else recipe(chosen, choice.options.chunk_size, args)


def name(func: Function, choice: Choice, args: Sequence[Tree], planned: Callable[..., str] | None) -> str:
    """The recipe for these arguments; without `planned` func, or the transform of it, is the compiler's own."""
    if planned is None or not all(isinstance(arg, Tensor) for arg in args):
        return _traced(func, choice, args)
    return planned(*((tuple(map(settled, x.shape)), x.dtype, str(x.device)) for x in args))


def _traced(func: Function, choice: Choice, args: Sequence[Tree]) -> str:
    """The recipe that is planned for what the compiler traces of func."""
    options = choice.options
    leaves, spec = flatten(tuple(args))
    before = compiler_graph.newest()
    copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    returned = compiled(func, unflatten(copies, spec))
    output = with_aux(returned)[0] if options.has_aux else returned
    outputs = [leaf.clone() for leaf in flatten(output)[0] if isinstance(leaf, Tensor)]
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    chosen = flatten(select_args(unflatten([*range(len(leaves))], spec), options.argnums))[0]
    if not outputs or not all(i in places for i in chosen):
        return EAGERLY  # it is refused there, in our own words
    argnums = tuple([places.index(i) for i in chosen])
    asked = choice.kind, choice.names, options.randomness, choice.verify, settled(choice.batch)
    return _of_graph(before, len(places), len(outputs), argnums, *asked)


@run_while_compiling
def _of_graph(
    before: str,
    inputs: int,
    outputs: int,
    argnums: tuple[int, ...],
    kind: Kind,
    names: tuple[str, ...],
    randomness: str,
    verify: bool,
    batch: int,
) -> str:
    """The same; of the `inputs` in the compiler's graph, those of `argnums` are differentiated."""
    try:
        func, args = compiler_graph.traced_since(before, inputs, outputs, numbers_like)
    except RefusedError:
        return EAGERLY
    return _planned(func, Choice(kind, names, Options(argnums, False, None, randomness), verify, batch), args)


def planned(func: Function, choice: Choice) -> Callable[..., str]:
    """What tells the recipe that is planned for arguments like these; not every func can be an argument of it."""

    @run_while_compiling
    def recipe(*specs: Spec) -> str:
        args = [numbers_like(torch.empty(shape, dtype=dtype, device=device)) for shape, dtype, device in specs]
        return _planned(func, choice, args)

    return recipe


def _planned(func: Function, choice: Choice, args: Sequence[Tree]) -> str:
    try:
        plan = lookup.for_transform(func, choice, args, inside=True).plan
    except RefusedError:  # it may be possible outside; else it is refused there, in our own words
        return EAGERLY
    if plan.sketch.foreign:  # torch.compile differentiates what their forward does, whatever their backward says
        return EAGERLY
    if plan.sketch.opaque:  # it follows what is a constant by intent, or what NumPy cuts
        return EAGERLY
    return plan.usable[0]
