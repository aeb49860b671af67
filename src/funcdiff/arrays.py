"""NumPy in, NumPy out: a torch function, network or transform, called from a program that knows no tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from funcdiff._calling.types import Function
from funcdiff._torch.trees import tree_map


def numpy_function(
    func: Function, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Callable[..., Any]:
    """Turn a function of tensors, such as a network or its derivative, into a function of NumPy arrays.

    Example:
        The Jacobian of x^2 has 2 x on the diagonal.

        >>> import numpy as np
        >>> import torch
        >>> from funcdiff import jacobian
        >>> from funcdiff.arrays import numpy_function
        >>> numpy_function(jacobian(torch.square))(np.array([1.0, 2.0]))
        array([[2., 0.],
               [0., 4.]])

    Args:
        func: The function. It takes tensors and returns tensors, or dicts, lists and tuples of tensors.
        dtype: The dtype to which floating-point arguments are converted. By default, that of the parameters if `func`
            is a network, or else no conversion.
        device: The device to which arguments are sent. By default, that of the parameters if `func` is a network, or
            else the CPU.

    Returns:
        The function. Its results are arrays with the shape and dtype that `func` returns. A sparse matrix in CSR layout
        becomes one of SciPy.

    Raises:
        TypeError: The new function raises it if an argument is not an array, a tensor or numbers.

    Cost:
        Memory is shared, and a call takes microseconds. An argument is copied only if its dtype or device changes, and
        a result only if it is on another device.
    """
    if isinstance(func, torch.nn.Module) and (parameter := next(func.parameters(), None)) is not None:
        dtype, device = dtype or parameter.dtype, device or parameter.device

    def run(*args: Any) -> Any:
        return tree_map(as_array, func(*(as_tensor(arg, dtype, device) for arg in args)))

    return run


def as_tensor(value: Any, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    """A tensor of an array's entries; it shares memory wherever torch can without a warning."""
    if not isinstance(value, Tensor):
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        if array.dtype.kind not in "fciub":
            raise TypeError(
                f"expected an array of numbers, got dtype {array.dtype}. Convert it with array.astype(float)"
            )
        value = torch.from_numpy(array if array.flags.writeable else array.copy())
    return value.to(device, dtype if value.is_floating_point() else None)  # type: ignore[no-any-return] # a Tensor


def as_array(value: Any) -> Any:
    """The array of a tensor's entries, a SciPy matrix of a sparse one, or what is no tensor as it came."""
    if isinstance(value, Tensor) and value.layout is torch.sparse_csr:
        # Here, as recipes work without SciPy, which has no types.
        from scipy.sparse import csr_array  # type: ignore[import-untyped]  # scipy ships no types

        parts = value.values(), value.col_indices(), value.crow_indices()
        return csr_array(tuple(map(as_array, parts)), shape=tuple(value.shape))
    return value.detach().cpu().resolve_conj().resolve_neg().numpy() if isinstance(value, Tensor) else value
