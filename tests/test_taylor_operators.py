"""Over torch's own operator database: a second derivative by Taylor mode is right or refused, never wrong."""

import warnings

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from funcdiff import hessian_taylor, laplacian

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the database's own deprecations
    from torch.testing._internal.common_methods_invocations import op_db

# Without a second derivative to compare with: not smooth at the sampled points, rounded to single precision or less
# (which central differences cannot resolve), or writing to repeated places in no fixed order.
NO_REFERENCE = {
    "bfloat16",
    "cfloat",
    "chalf",
    "float",
    "half",
    "nn.functional.max_unpool1d",
    "nn.functional.max_unpool2d",
    "nn.functional.max_unpool3d",
    "linalg.norm.subgradients_at_zero",
}
SLOW = {"pca_lowrank", "svd_lowrank", "lu_solve", "linalg.lu_solve"}


def full_name(operator):
    return ".".join(filter(None, (operator.name, operator.variant_test_name)))


OPERATORS = [
    operator
    for operator in op_db
    if operator.supports_autograd
    and torch.float64 in operator.supported_dtypes("cpu")
    and full_name(operator) not in NO_REFERENCE | SLOW
]


def scalar_function(operator, sample):
    """A cubic polynomial of all outputs as a function of one vector, and where to take it; None if it is too large."""
    leaves, spec = tree_flatten(((sample.input, *sample.args), sample.kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    places = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor) and x.requires_grad]
    sizes = [leaves[i].numel() for i in places]
    if not 0 < sum(sizes) <= 9 or any(x.layout is not torch.strided for x in tensors):
        return None

    def func(vector):
        filled = list(leaves)
        for i, part in zip(places, vector.split(sizes), strict=True):
            filled[i] = part.reshape(leaves[i].shape)
        args, kwargs = tree_unflatten(filled, spec)
        outputs = [y for y in tree_leaves(operator.op(*args, **kwargs)) if y.is_floating_point() or y.is_complex()]
        outputs = [torch.view_as_real(y) if y.is_complex() else y for y in outputs]
        return torch.stack([(y + 0.3 * y**2 + 0.1 * y**3).sum() for y in outputs]).sum()

    return func, torch.cat([leaves[i].detach().reshape(-1) for i in places])


def central_differences(func, x, step=1e-5):
    rows = []
    for direction in torch.eye(x.numel(), dtype=x.dtype):
        slopes = []
        for sign in (1, -1):
            moved = (x + sign * step * direction).requires_grad_()
            (slope,) = torch.autograd.grad(func(moved), moved)
            slopes.append(slope)
        rows.append((slopes[0] - slopes[1]) / (2 * step))
    return torch.stack(rows)


@pytest.mark.filterwarnings("ignore")  # operators that are deprecated, or slow under vmap
@pytest.mark.parametrize("operator", OPERATORS, ids=full_name)
def test_right_or_refused(operator):
    torch.manual_seed(0)
    problems = (scalar_function(operator, sample) for sample in operator.sample_inputs("cpu", torch.float64, True))
    for func, x in [problem for problem in problems if problem is not None][:1]:
        try:
            hessian = hessian_taylor(func)(x)
            total = laplacian(func)(x)
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            continue
        expected = central_differences(func, x)
        if not expected.isfinite().all():
            continue
        scale = 1 + expected.abs().max().item()
        torch.testing.assert_close(hessian, expected, rtol=0, atol=1e-4 * scale)
        torch.testing.assert_close(total, hessian.trace(), rtol=1e-7, atol=1e-7 * scale)
