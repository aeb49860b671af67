"""torch's pytrees, with a short way for the commonest: a tensor, a few tensors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import (
    TreeSpec,
    _broadcast_to_and_flatten,
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_map_only,
    tree_structure,
    tree_unflatten,
)

__all__ = [  # torch's own ones for the other rooms, beside the short ways below
    "Tree",
    "TreeSpec",
    "broadcast",
    "flatten",
    "hashed",
    "map_leaves",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_map_only",
    "tree_unflatten",
    "unflatten",
]

Tree = Any  # a tensor, or dicts, lists and tuples of them
LEAF = tree_structure(None)
TUPLES = [tree_structure((None,) * length) for length in range(8)]
FLAT = frozenset(map(id, TUPLES))


def flatten(tree: Tree) -> tuple[Sequence[Any], TreeSpec]:
    """The leaves of a tree and its structure."""
    if isinstance(tree, Tensor):
        return (tree,), LEAF
    if type(tree) is tuple and len(tree) < len(TUPLES):
        for leaf in tree:  # a generator takes longer
            if not isinstance(leaf, Tensor):
                break
        else:
            return tree, TUPLES[len(tree)]
    return tree_flatten(tree)


def hashed(spec: TreeSpec) -> Hashable:
    """What tells one structure from another, without a walk through the commonest."""
    return id(spec) if spec is LEAF or id(spec) in FLAT else spec


def unflatten(leaves: Sequence[Any], spec: TreeSpec) -> Tree:
    """The tree of that structure."""
    if spec is LEAF:
        return leaves[0]
    return tuple(leaves) if id(spec) in FLAT else tree_unflatten(leaves, spec)


def map_leaves(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """The tree of `function` of every leaf, and of the leaves at its place in trees like it."""
    if isinstance(tree, Tensor):
        return function(tree, *others)
    leaves, spec = flatten(tree)
    columns = zip(leaves, *(flatten(other)[0] for other in others), strict=True)
    return unflatten([function(*some) for some in columns], spec)


def broadcast(prefix: Tree, spec: TreeSpec) -> list[Any] | None:
    """A leaf of `prefix` for each leaf of the structure, as vmap reads its in_dims; None where they do not fit."""
    return _broadcast_to_and_flatten(prefix, spec)
