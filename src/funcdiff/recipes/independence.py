"""Do the rows of a batch mix: the condition under which a sum over the batch may be differentiated instead of its rows.

NOTE [rows that mix]. Pull back the cotangent w (x) c: a weight w_b for each row, times one cotangent c for all. Of
independent rows, row b of the result is w_b times row b of what 1 (x) c gives; otherwise it is off by the sum over the
other rows b' of (w_b' - w_b) c df_b'/dx_b. With weights that all differ, one such pass finds any mixing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcdiff._calling.point import check_primals
from funcdiff._calling.transform import FlatFunction, guarded
from funcdiff._calling.types import Blocks, Function
from funcdiff._torch.transforms import transforms_active, vjp
from funcdiff._torch.trees import Tree, flatten, map_leaves


def check_batch_independence(func: Function, *primals: Tree) -> float:
    """Check that each row of the output of `func` depends only on its own row of the input.

    It returns a number that is zero up to rounding if this is so, and raises an error otherwise. Call it before you
    differentiate the sum over a batch to get the derivative of each row. Batch norm in training mode, attention and a
    mean over the batch mix the rows.

    Example:
        The square of a row depends on that row alone. The distance from the mean does not.

        >>> import torch
        >>> from funcdiff import check_batch_independence
        >>> x = torch.tensor([[1.0], [2.0], [4.0]])
        >>> check_batch_independence(torch.square, x)
        0.0
        >>> check_batch_independence(lambda x: x - x.mean(0), x)
        Traceback (most recent call last):
        ...
        ValueError: expected rows that do not depend on each other, ...

    Args:
        func: The function of the whole batch.
        *primals: The arguments of `func`: tensors or pytrees of tensors, all with the batch as axis 0.

    Returns:
        The largest derivative found of a row with respect to another row, divided by the largest derivative. It is zero
        up to rounding.

    Raises:
        TypeError: An argument or the output is not a dense tensor of real floating-point numbers.
        ValueError: A row of the output depends on other rows of the input (the message says how much), or the output
            does not have one row for each row of the input.

    Cost:
        One forward pass and two backward passes of the batch.
    """
    x, spec = check_primals(primals)

    def run(*x: Tensor) -> Tensor:
        output, pull = vjp(FlatFunction(lambda args: func(*args), spec), *x)
        return first_order_leak(pull, output, x)

    leak = guarded(run, x)
    refuse(leak, tolerance(leak))
    return float(leak)


def first_order_leak(pull: Callable[[Tree], Sequence[Tensor]], output: Tree, primals: Sequence[Tensor]) -> Tensor:
    """The leak between rows in the derivative of `output`, by two pulls."""
    count = row_count(primals, flatten(output)[0])
    directions = map_leaves(lambda y: irregular(y.sum(0))[None], output)
    plain = pull(map_leaves(lambda c: c.expand(count, *c.shape[1:]), directions))
    return leak(pull(map_leaves(lambda c: weighted(c, count), directions)), plain)


def row_count(primals: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """B, the common length of axis 0."""
    shapes = [tuple(tensor.shape) for tensor in (*primals, *outputs)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            "expected the batch as axis 0 of each differentiated argument and each output, got shapes "
            f"{shapes[: len(primals)]} -> {shapes[len(primals) :]}. func must take and return the whole batch."
        )
    return shapes[0][0]


def irregular(like: Tensor) -> Tensor:
    """Numbers of [1, 2), no two alike: the fractions of the multiples of the golden ratio."""
    numbers = 1 + torch.arange(like.numel(), dtype=torch.float64, device="cpu") * ((5**0.5 - 1) / 2) % 1
    return numbers.to(like.dtype).to(like.device).view(like.shape)  # in this order: not every device has float64


def weighted(rows: Tensor, count: int) -> Tensor:
    """Each of `count` rows (or one row for all) times its own weight."""
    weights = irregular(rows.new_empty(count))
    return weights.view(-1, *(1 for _ in rows.shape[1:])) * rows


def leak(got: Sequence[Tensor], plain: Sequence[Tensor]) -> Tensor:
    """The largest difference of `got` from the weighted rows of `plain`, relative to the largest entry.

    Entries that are not finite are left out: they show in the result themselves.
    """
    differences, sizes = [], []
    for some, rows in zip(got, plain, strict=True):
        expected = weighted(rows, len(rows))
        finite = (some - expected).isfinite()
        differences.append(largest(torch.where(finite, some - expected, 0)))
        sizes.append(largest(torch.where(finite, expected, 0)))
        sizes.append(largest(torch.where(finite, some, 0)))
    size = torch.stack(sizes).amax()
    return (torch.stack(differences).amax() / torch.where(size > 0, size, 1)).detach()


def largest(tensor: Tensor) -> Tensor:
    """The largest absolute entry; 0 of none."""
    return tensor.abs().amax() if tensor.numel() else tensor.sum()


def only_independent(blocks: Blocks, leak: Tensor) -> Blocks:
    """`blocks`, refused if the rows leak; NaN where the leak cannot be read (in a transform, on a meta tensor)."""
    limit = tolerance(leak)
    if torch.compiler.is_compiling() or transforms_active() or leak.is_meta:
        poison = torch.where(leak > limit, torch.nan, 1)  # a factor, to reach the derivatives of the blocks as well
        return [[block * poison for block in row] for row in blocks]
    refuse(leak, limit)
    return blocks


def tolerance(leak: Tensor) -> float:
    """What rounding may look like: 2e-5 in float32, 4e-11 in float64, 0.04 under autocast to bfloat16."""
    autocast = not leak.is_meta and torch.is_autocast_enabled(leak.device.type)
    dtype = torch.get_autocast_dtype(leak.device.type) if autocast else leak.dtype
    return float(torch.finfo(dtype).eps ** (2 / 3))


def refuse(leak: Tensor, limit: float) -> None:
    """Raise if the rows mix."""
    if leak > limit:
        raise ValueError(
            "expected rows that do not depend on each other, got a derivative with respect to another row that is "
            f"{float(leak):.2g} times the largest derivative. Batch norm in training mode, attention and a mean over "
            "the batch make rows depend on each other. Call eval() on a batch norm with running statistics, write a "
            "function of one row for batch_jacobian or batch_hessian, or compute the Jacobian of the whole batch with "
            "jacobian."
        )
