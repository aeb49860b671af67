"""The one place where what a caller passes is checked, copied and taken apart."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from funcdiff._refusals import MUTATES, reraise

Tree = Any  # a tensor, or dicts, lists and tuples of them: torch's pytrees
Function = Callable[..., Tree]
Flat = Callable[..., tuple[Tree, Tree]]  # of the differentiated leaves alone, to (output, aux)
Scalar = Callable[..., Tensor]
Primals = tuple[Tensor, ...]
Blocks = list[list[Tensor]]  # for each output leaf, a block for each primal
Derivative = tuple[Blocks, TreeSpec, Tree]  # the blocks, the structure of the output, and aux


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
        position = wrap_argnums(argnums, len(args))
        primals, in_spec = tree_flatten(take(args, position))
        check_leaves(primals, "differentiated argument")

        def run(*copies: Tree) -> Tree:
            def flat(*leaves: Tensor) -> tuple[Tree, Tree]:
                returned = func(*put(copies, position, tree_unflatten(leaves, in_spec)))
                output, aux = split_aux(returned) if has_aux else (returned, ())
                check_leaves(tree_flatten(output)[0], "output of func")
                return output, aux

            blocks, out_spec, aux = derivative(flat, tuple(tree_flatten(take(copies, position))[0]))
            result = tree_unflatten([tree_unflatten(row, in_spec) for row in blocks], out_spec)
            return (result, aux) if has_aux else result

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
    try:
        result = run(*copies)
    except RuntimeError as error:
        reraise(error)
    if any(was_written(copy) for copy in copies):
        raise RuntimeError(MUTATES)
    return result


def copied(arg: Tree) -> Tree:
    return arg.clone() if isinstance(arg, Tensor) else tree_map_only(Tensor, Tensor.clone, arg)


def was_written(copy: Tree) -> bool:
    leaves = (copy,) if isinstance(copy, Tensor) else tree_flatten(copy)[0]
    # Inference tensors keep no version.
    return any(isinstance(leaf, Tensor) and not leaf.is_inference() and leaf._version > 0 for leaf in leaves)


def take(args: Sequence[Tree], position: int | tuple[int, ...]) -> Tree:
    return args[position] if isinstance(position, int) else tuple(args[i] for i in position)


def put(args: Sequence[Tree], position: int | tuple[int, ...], selected: Tree) -> list[Tree]:
    placed = list(args)
    for i, arg in [(position, selected)] if isinstance(position, int) else zip(position, selected, strict=True):
        placed[i] = arg
    return placed


def split_aux(returned: Tree) -> tuple[Tree, Tree]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"has_aux=True expects func to return (output, aux), got {kind(returned)}")
    return returned


def check_argnums(argnums: int | tuple[int, ...]) -> None:
    many = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in many):
        raise TypeError(f"expected argnums to be an int or a tuple of ints, got {argnums!r}")
    if not many:
        raise ValueError("expected argnums to name at least one argument, got ()")


def wrap_argnums(argnums: int | tuple[int, ...], count: int) -> int | tuple[int, ...]:
    """Negative positions counted from the end, as torch does."""
    many = argnums if isinstance(argnums, tuple) else (argnums,)
    wrapped = tuple(i + count if i < 0 else i for i in many)
    if not all(0 <= i < count for i in wrapped):
        raise ValueError(f"argnums={argnums} is out of range: func was called with {count} positional arguments")
    if len(set(wrapped)) != len(wrapped):
        raise ValueError(f"expected argnums to name each argument once, got {argnums} of {count} arguments")
    return wrapped if isinstance(argnums, tuple) else wrapped[0]


def check_chunk_size(chunk_size: int | None) -> None:
    if chunk_size is None:
        return
    if not isinstance(chunk_size, int) or isinstance(chunk_size, bool):
        raise TypeError(f"expected chunk_size to be a positive int or None (all at once), got {chunk_size!r}")
    if chunk_size < 1:
        raise ValueError(f"expected chunk_size to be a positive int or None (all at once), got {chunk_size}")


def refuse_keywords(kwargs: dict[str, Any]) -> None:
    if kwargs:
        names = ", ".join(f"{name}=..." for name in kwargs)
        raise TypeError(
            f"a transformed function takes positional arguments only, got {names}; "
            f"bind them first: functools.partial(func, {names})"
        )


def check_leaves(leaves: Sequence[Any], role: str) -> None:
    """Refuse what has no derivative: `role` says in the message what the leaves are."""
    if not leaves:
        raise TypeError(f"expected at least one tensor as {role}, got none")
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"expected every leaf of each {role} to be a tensor, got {kind(leaf)}{ADVICE.get(role, '')}"
            )
        if leaf.is_complex():
            raise TypeError(f"expected a real {role}, got {leaf.dtype}; split it by torch.view_as_real")
        if not leaf.is_floating_point():
            raise TypeError(f"expected a floating-point {role}, got {leaf.dtype}; convert it, x.double()")
        if leaf.layout is not torch.strided or leaf.is_nested:
            raise TypeError(
                f"expected a dense {role}, got {layout(leaf)}; convert it, x.to_dense() or to_padded_tensor"
            )
    if len(leaves) > 1 and len({leaf.device for leaf in leaves}) > 1:
        devices = ", ".join(sorted({str(leaf.device) for leaf in leaves}))
        raise ValueError(f"expected all tensors of the {role} on one device, got {devices}; move them with .to(device)")


ADVICE = {
    "output of func": "; return tensors (no float(), .item(), .numpy() on the way), other results by has_aux=True",
    "differentiated argument": "; pass tensors, or leave the argument out of argnums",
}


def kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def layout(leaf: Tensor) -> str:
    return "a nested tensor" if leaf.is_nested else f"layout {leaf.layout}"


def at_point(
    product: Callable[[Scalar, Primals, Primals], Sequence[Tensor]],
    func: Function,
    primals: tuple[Tree, ...],
    tangents: tuple[Tree, ...],
) -> Tree:
    """Make `product`, which sees only flat tensors, a product at a point with torch.func.jvp's calling convention."""
    check_primals(primals)
    check_tangents(primals, tangents)

    def run(primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
        leaves, spec = tree_flatten(primals)
        return whole(product(scalar(func, spec), tuple(leaves), tuple(tree_flatten(tangents)[0])), spec)

    return guarded(run, (primals, tangents))


def scalar(func: Function, spec: TreeSpec) -> Scalar:
    """`func` of flat leaves, refused unless it returns one number."""

    def flat(*leaves: Tensor) -> Tensor:
        output = func(*tree_unflatten(leaves, spec))
        check_leaves([output], "output of func")
        if output.dim() > 0:
            raise ValueError(
                f"expected func to return a scalar, shape (), got shape {tuple(output.shape)}; "
                "reduce it (.sum(), .squeeze()), or take the whole Hessian by hessian_forward_over_reverse"
            )
        return output  # type: ignore[no-any-return]  # func is the caller's

    return flat


def whole(leaves: Sequence[Tensor], spec: TreeSpec) -> Tree:
    """Leaves as the caller gave the primals; of a single primal, that primal alone."""
    product = tree_unflatten(leaves, spec)
    return product[0] if len(product) == 1 else product


def check_primals(primals: tuple[Tree, ...]) -> None:
    if not isinstance(primals, tuple):
        raise TypeError(f"expected primals to be a tuple, func's arguments, got {kind(primals)}; write (x,) for one")
    check_leaves(tree_flatten(primals)[0], "differentiated argument")


def check_tangents(primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> None:
    """A tangent must be like its primal in all; one that broadcasts would give a wrong number silently."""
    expected, spec = tree_flatten(primals)
    got, got_spec = tree_flatten(tangents)
    if got_spec != spec:
        raise TypeError(f"expected tangents structured like primals, {spec}, got {got_spec}")
    for primal, tangent in zip(expected, got, strict=True):
        if not isinstance(tangent, Tensor):
            raise TypeError(f"expected every tangent to be a tensor, got {kind(tangent)}")
        if tangent.shape != primal.shape:
            raise ValueError(
                f"expected a tangent of its primal's shape, {tuple(primal.shape)}, got {tuple(tangent.shape)}; "
                "tangents do not broadcast: use .reshape or .expand_as"
            )
        if tangent.dtype != primal.dtype:
            raise TypeError(f"expected a tangent of its primal's dtype, {primal.dtype}, got {tangent.dtype}")
        if tangent.device != primal.device:
            raise ValueError(f"expected a tangent on its primal's device, {primal.device}, got {tangent.device}")
