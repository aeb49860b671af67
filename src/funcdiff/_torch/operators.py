"""What is known of an operator, whatever its arguments: looked up once, as a sketch asks it at each call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from funcdiff._torch.delicate import singular
from funcdiff._torch.flops import FORMULAS
from funcdiff._torch.reading import may_show
from funcdiff._torch.tensors import WITH_NUMBER

# Of one operand that depends on the input these are linear, at least piecewise; of two, the sums among them.
_LAYOUTS = ("t", "view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "slice", "select", "squeeze")
_COPIES = (
    "unsqueeze",
    "unbind",
    "split",
    "split_with_sizes",
    "index",
    "gather",
    "clone",
    "alias",
    "_to_copy",
)
_SUMS = ("add", "sub", "neg", "cat", "stack", "sum", "mean")
_PRODUCTS = ("mul", "div", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution")
_PIECEWISE = ("relu", "threshold", "leaky_relu", "hardtanh", "abs")
_BY_HAND = frozenset(("tanh", "sigmoid", "silu", "gelu", "elu", "softplus", "sin", "cos", "exp"))
# Scalar functions with closed forms in `_jets`, beside whole powers.
_CLOSED = _BY_HAND | {"log", "reciprocal", "rsqrt"}
# These take some of the numbers that they are given. Others with fewer results than operands combine them.
_SELECTIONS = ("index_select", "embedding", "take", "diagonal", "masked_select", "nll_loss_forward")
_EXTREMES = ("max", "min", "amax", "amin", "median", "kthvalue", "mode", "topk", "sort")
BATCH_NORMS = "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"
IN_EVALUATION = "batch_norm in evaluation mode"  # a product with numbers: right in every mode, but for the third one
RENAMED = frozenset(("embedding", *BATCH_NORMS))  # those that arguments decide about
_NAMESPACES = frozenset(("aten", "prims", "prim", "quantized", "mkldnn"))
_LINEAR = frozenset((*_LAYOUTS, *_COPIES, *_SUMS, *_PRODUCTS, *_PIECEWISE))


class Facts(NamedTuple):
    """One operator's.

    Attributes:
        name: As torch's dispatcher knows it.
        own: Whether it is torch's.
        formula: How many FLOPs it takes, if it multiplies matrices.
        writes: Whether it writes into an argument.
        seeded: Whether it may draw random numbers.
        shows: Whether it may make a number of a tensor, or a shape of its values.
        numbered: Whether it takes a number, and torch must not be given zeros without memory with it.
        adds: Whether it is linear in all its operands together.
        linear: Whether it is linear in one of them, at least piecewise.
        by_hand: Whether it is an activation with a Taylor rule in closed form.
        selects: Whether each number that it makes is one that it is given.
    """

    name: str
    own: bool
    formula: Callable[..., int] | None
    writes: bool
    seeded: bool
    shows: bool
    numbered: bool
    adds: bool
    linear: bool
    by_hand: bool
    selects: bool


@functools.cache
def facts(func: Any) -> Facts:
    """What is known of an overload."""
    name = str(func.overloadpacket.__name__)
    return Facts(
        name,
        func.namespace in _NAMESPACES,
        FORMULAS.get(func.overloadpacket),
        func._schema.is_mutable,
        torch.Tag.nondeterministic_seeded in func.tags,
        may_show(func),
        func in WITH_NUMBER,
        name in _SUMS,
        name in _LINEAR,
        name in _BY_HAND,
        name in _SELECTIONS or name in _EXTREMES,
    )


def known_as(func: Any, args: Sequence[Any], kwargs: Any) -> str:
    """The name by which an operator is blamed: an embedding that treats all its rows alike is a selection of rows."""
    name = str(func.overloadpacket.__name__)
    if name in BATCH_NORMS:
        return name if arguments(func, args, kwargs, lambda a: a.name == "training")[0] else IN_EVALUATION
    if name == "embedding":
        padding, scaled = arguments(func, args, kwargs, lambda a: a.name in ("padding_idx", "scale_grad_by_freq"))
        return name if padding >= 0 or scaled else "index_select"
    return name


def has_closed_form(known: Facts, args: Sequence[Any]) -> bool:
    """Whether its Taylor rule is a closed form, of these arguments."""
    return known.name in _CLOSED or (known.name == "pow" and not singular("pow", args, ()))


def draws(func: Any, args: Sequence[Any], kwargs: Any) -> bool:
    """Whether an operation that may draw random numbers does: not in evaluation, nor with a probability of zero."""
    switches = {"training", "train", "p", "dropout_p", "dropout"}
    return all(arguments(func, args, kwargs, lambda a: a.name in switches))


def arguments(func: Any, args: Sequence[Any], kwargs: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """The arguments, defaults included, that are `wanted` by what the operator's schema says of them."""
    named = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    return [named.get(a.name, a.default_value) for a in func._schema.arguments if wanted(a)]
