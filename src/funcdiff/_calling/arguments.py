"""What a caller passes to a transform is checked and selected here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcdiff._torch.trees import Tree, flatten


def select_args(args: Sequence[Tree], argnums: int | tuple[int, ...]) -> Tree:
    return args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in argnums)


def replace_args(args: Sequence[Tree], argnums: int | tuple[int, ...], selected: Tree) -> list[Tree]:
    placed = list(args)
    for i, arg in [(argnums, selected)] if isinstance(argnums, int) else zip(argnums, selected, strict=True):
        placed[i] = arg
    return placed


def apart(returned: Tree, has_aux: bool) -> tuple[Tree, ...]:
    """The output, and the aux if there is one."""
    return returned if has_aux else (returned,)


def with_aux(returned: Tree) -> tuple[Tree, Tree]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(
            f"has_aux=True expects func to return (output, aux), got {kind(returned)}. Return both, or omit has_aux."
        )
    for leaf in flatten(returned[1])[0]:
        if not isinstance(getattr(leaf, "value", leaf), Tensor):  # of a jet, which compiled is no tensor, its value
            raise TypeError(f"expected aux to contain only tensors, got {kind(leaf)}. Wrap it: torch.tensor(...).")
    return returned


def check_range(argnums: int | tuple[int, ...], count: int) -> None:
    """Positions may be negative, counted from the end, as in torch."""
    if isinstance(argnums, int) and -count <= argnums < count:
        return
    many = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(-count <= i < count for i in many):
        raise ValueError(f"expected argnums within the {count} positional arguments of the call, got {argnums}")
    if len({i % count for i in many}) < len(many):
        raise ValueError(f"expected argnums to name each of the {count} arguments at most once, got {argnums}")


def refuse_keywords(kwargs: dict[str, Any]) -> None:
    if kwargs:
        names = ", ".join(f"{name}=..." for name in kwargs)
        raise TypeError(
            f"a transformed function takes positional arguments only, got {names}. "
            f"Bind them first: functools.partial(func, {names})."
        )


def differentiated(args: Sequence[Tree], argnums: int | tuple[int, ...], kwargs: dict[str, Any]) -> Sequence[Tensor]:
    """The leaves to differentiate with respect to, of a call that has been checked."""
    refuse_keywords(kwargs)
    check_range(argnums, len(args))
    leaves: Sequence[Tensor] = flatten(select_args(args, argnums))[0]
    check_leaves(leaves, "differentiated argument")
    return leaves


def check_leaves(leaves: Sequence[Any], role: str) -> None:
    """Refuse what has no derivative: `role` says in the message what the leaves are."""
    if not leaves:
        raise TypeError(f"expected at least one tensor as {role}, got none")
    first = leaves[0]
    for leaf in leaves:
        dense = type(leaf) is Tensor and leaf.layout is torch.strided and not leaf.is_nested
        if dense and leaf.is_floating_point() and (leaf is first or leaf.device == first.device):
            continue  # as nearly all are
        if not isinstance(leaf, Tensor):
            raise TypeError(f"expected each {role} to contain only tensors, got {kind(leaf)}. {ADVICE[role]}")
        if leaf.is_complex():
            raise TypeError(f"expected a real {role}, got {leaf.dtype}. Split it with torch.view_as_real.")
        if not leaf.is_floating_point():
            raise TypeError(f"expected a floating-point {role}, got {leaf.dtype}. Convert it: x.double().")
        if leaf.layout is not torch.strided or leaf.is_nested:
            raise TypeError(
                f"expected a dense {role}, got {layout(leaf)}. Convert it with x.to_dense() or x.to_padded_tensor(0.0)."
            )
        if leaf.device != leaves[0].device:
            devices = f"{leaves[0].device} and {leaf.device}"
            raise ValueError(f"expected every {role} on one device, got {devices}. Move them with .to(device).")


ADVICE = {
    "output of func": "Return tensors, without float(), .item() or .numpy() on the way. "
    "Return further tensors as aux, with has_aux=True.",
    "raveled tree": "Leave it out.",
    "differentiated argument": "Pass tensors, or leave the argument out of argnums.",
}


def kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def layout(leaf: Tensor) -> str:
    return "a nested tensor" if leaf.is_nested else f"layout {leaf.layout}"
