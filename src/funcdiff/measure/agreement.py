"""Candidates are compared in speed only when they agree in their results."""

from typing import Any

import torch
from torch import Tensor

from funcdiff._torch.trees import tree_flatten


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative error allowed between two results: the square root of the dtype's precision.

    It separates rounding, also that of long sums, from a wrong derivative. Integers must be equal.

    >>> f"{tolerance(torch.float64):.1e}, {tolerance(torch.float32):.1e}, {tolerance(torch.int64):.1e}"
    '1.5e-08, 3.5e-04, 0.0e+00'
    """
    return float(torch.finfo(dtype).eps ** 0.5) if dtype.is_floating_point or dtype.is_complex else 0.0


def check_agreement(name: str, expected: Any, other: str, result: Any) -> None:
    """Raise if two candidates' results differ in structure, shape, dtype or value.

    Raises:
        ValueError: They differ; it names the two candidates and says how.
    """
    if difference := _difference(expected, result):
        raise ValueError(
            f"expected {name!r} and {other!r} to give the same result, but {difference}. "
            "Correct one of them, or pass equal=False if they are meant to differ"
        )


def _difference(expected: Any, result: Any) -> str | None:
    leaves, structure = tree_flatten(expected)
    other_leaves, other_structure = tree_flatten(result)
    if structure != other_structure:
        return f"their structures are {structure} and {other_structure}"
    return next(filter(None, map(_leaf_difference, leaves, other_leaves)), None)


def _leaf_difference(expected: Any, result: Any) -> str | None:
    try:
        a, b = (x.detach() if isinstance(x, Tensor) else torch.as_tensor(x, device="cpu") for x in (expected, result))
    except (TypeError, RuntimeError, ValueError):  # neither tensor nor array nor number
        return None if expected == result else f"they are {expected!r} and {result!r}"
    if a.shape != b.shape:
        return f"their shapes are {tuple(a.shape)} and {tuple(b.shape)}"
    if a.dtype != b.dtype:
        return f"their dtypes are {a.dtype} and {b.dtype}"
    if a.device != b.device:
        return f"their devices are {a.device} and {b.device}"
    if a.is_meta or a.numel() == 0:
        return None
    if a.dtype is torch.bool:
        return None if torch.equal(a, b) else f"{int((a ^ b).sum())} of their {a.numel()} entries differ"
    relative = tolerance(a.dtype)
    finite = a[a.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    # NOTE: the error is held against the tensor's largest entry, since an entry that cancels to nearly zero has
    # no correct digits of its own.
    if torch.allclose(a, b, rtol=relative, atol=relative * scale, equal_nan=True):
        return None
    apart = (a.to(torch.complex128 if a.is_complex() else torch.float64) - b).abs().nan_to_num(nan=torch.inf).max()
    return f"they differ by up to {float(apart):.3g}, where entries reach {scale:.3g}"
