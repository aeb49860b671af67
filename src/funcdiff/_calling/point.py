"""Results at a point: what a caller passes is checked and taken apart here, as `transform` does it for transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from funcdiff._calling.arguments import check_leaves, kind
from funcdiff._calling.lazy import refuse_lazy
from funcdiff._calling.transform import guarded
from funcdiff._calling.types import Function, Primals
from funcdiff._calling.wrapped import refuse_wrapped
from funcdiff._torch.trees import Tree, TreeSpec, flatten, unflatten

Scalar = Callable[..., Tensor]  # func as a function of its leaves, to one number


def at_point(
    formula: Callable[..., Any],
    func: Function,
    primals: tuple[Tree, ...],
    *tangents: tuple[Tree, ...],
    depth: int = 1,
) -> Any:
    """`formula(flat, x, *tangents)` for a scalar function: `flat` and all vectors have flat tensors only.

    Its result is structured like the primals with `depth` 1, and returned as it is with `depth` 0.
    """
    check_primals(primals)
    refuse_lazy(func)
    refuse_wrapped(func)
    return at_known_point(formula, func, primals, *tangents, depth=depth)


def at_known_point(
    formula: Callable[..., Any],
    func: Function,
    primals: tuple[Tree, ...],
    *tangents: tuple[Tree, ...],
    depth: int = 1,
) -> Any:
    """The same, for a function and primals that were looked at already."""
    leaves, spec = flatten(primals)
    x = tuple(leaves)
    size = len(x)
    vectors = [check_tangents(v, x, spec) for v in tangents]

    def run(*copies: Tensor) -> Any:
        return formula(scalar(func, spec), *[copies[i : i + size] for i in range(0, len(copies), size)])

    result = guarded(run, sum(vectors, x))
    return whole(result, spec) if depth else result


WITHOUT_AXIS = "Return the number without its axis: output.squeeze()."
ONE_NUMBER = "Reduce it to one number, such as .sum(), or compute the Hessian of every output with hessian."


def scalar(func: Function, spec: TreeSpec) -> Scalar:
    """`func` of flat leaves, refused unless it returns one number."""

    def flat(*leaves: Tensor) -> Tensor:
        output = func(*unflatten(leaves, spec))
        check_leaves([output], "output of func")
        if output.dim() > 0:
            advice = WITHOUT_AXIS if output.numel() == 1 else ONE_NUMBER
            raise ValueError(f"expected func to return a scalar, shape (), got shape {tuple(output.shape)}. {advice}")
        return output  # type: ignore[no-any-return]  # func is the caller's

    return flat


def whole(leaves: Sequence[Tensor], spec: TreeSpec) -> Tree:
    """Leaves as the caller gave the primals; of a single primal, that primal alone."""
    product = unflatten(leaves, spec)
    return product[0] if len(product) == 1 else product


def check_tuple(primals: tuple[Tree, ...]) -> None:
    if not isinstance(primals, tuple):
        raise TypeError(f"expected primals to be a tuple of func's arguments, got {kind(primals)}. Write (x,) for one.")


def check_primals(primals: tuple[Tree, ...]) -> tuple[Primals, TreeSpec]:
    """The leaves and the structure of the arguments of a product."""
    check_tuple(primals)
    leaves, spec = flatten(primals)
    check_leaves(leaves, "differentiated argument")
    return tuple(leaves), spec


def check_tangents(tangents: tuple[Tree, ...], primals: Primals, expected: TreeSpec) -> Primals:
    """The leaves of the tangents, each like its primal in all: one that broadcasts gives a wrong number silently."""
    leaves, spec = flatten(tangents)
    if spec is not expected and spec != expected:
        raise TypeError(
            f"expected tangents structured like primals, {expected}, got {spec}. Pass one tangent for each primal."
        )
    for primal, tangent in zip(primals, leaves, strict=True):
        if not isinstance(tangent, Tensor):
            raise TypeError(f"expected every tangent to be a tensor, got {kind(tangent)}. Pass tensors.")
        if tangent.shape != primal.shape:
            raise ValueError(
                f"expected a tangent with the shape of its primal, {tuple(primal.shape)}, got {tuple(tangent.shape)}. "
                "Tangents do not broadcast: use .reshape or .expand_as."
            )
        if tangent.dtype != primal.dtype:
            raise TypeError(
                f"expected a tangent with the dtype of its primal, {primal.dtype}, got {tangent.dtype}. "
                "Convert it: v.to(x.dtype)."
            )
        if tangent.device != primal.device:
            raise ValueError(
                f"expected a tangent on the device of its primal, {primal.device}, got {tangent.device}. "
                "Move it: v.to(x.device)."
            )
    return tuple(leaves)
