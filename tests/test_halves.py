"""Half precision: as near to the derivative as its numbers allow, whichever recipe is taken."""

import pytest
import torch
import torch.nn.functional as F

import funcdiff as fd
from funcdiff._automatic.candidates import RECIPES

HALVES = torch.bfloat16, torch.float16
OFF_DIAGONAL = ~torch.eye(3, dtype=torch.bool)
POINTS = torch.tensor([[0.5, -1.25], [1.5, 0.75], [-0.25, 2.0]], dtype=torch.float64)
NAMES = {
    "jacobian": lambda f, x: fd.jacobian(f)(x),
    "hessian": lambda f, x: fd.hessian(f)(x),
    "hessian_diagonal": lambda f, x: fd.hessian_diagonal(f)(x),
    "laplacian": lambda f, x: fd.laplacian(f)(x),
    "hvp": lambda f, x: fd.hvp(f, (x,), (torch.ones_like(x),)),
    "hvp_operator": lambda f, x: fd.hvp_operator(f, x)(torch.ones_like(x)),
    "batch_jacobian": lambda f, x: fd.batch_jacobian(f)(torch.stack([x, 2 * x])),
    "batch_hessian": lambda f, x: fd.batch_hessian(f)(torch.stack([x, 2 * x])),
}


def away(x):
    return x[:, None] - x


PAIRS = {
    "norms": lambda x: away(x).norm(dim=-1).pow(3).sum(),
    "vector norms": lambda x: torch.linalg.vector_norm(away(x), dim=-1).sin().sum(),
    "masked reciprocals": lambda x: torch.where(OFF_DIAGONAL, 1 / away(x).norm(dim=-1), 0.0).sum(),
    "roots, then a selection": lambda x: away(x).square().sum(-1).sqrt()[OFF_DIAGONAL].sum(),
    "filled with infinity": lambda x: away(x).norm(dim=-1).masked_fill(~OFF_DIAGONAL, torch.inf).reciprocal().sum(),
    "nan_to_num": lambda x: torch.nan_to_num(1 / away(x).norm(dim=-1), posinf=0.0).sum(),
}


def pairs(func, x):
    """The same without the distances of points to themselves."""
    apart = (x[[0, 0, 1]] - x[[1, 2, 2]]).square().sum(-1).sqrt()
    return (
        2
        * (
            apart.sin()
            if "vector" in func
            else apart.pow(3)
            if func == "norms"
            else apart
            if "roots" in func
            else 1 / apart
        ).sum()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("func", PAIRS)
def test_distances_of_points_to_themselves_leave_no_nan(func, name, dtype):
    got = NAMES[name](PAIRS[func], POINTS.to(dtype)).double()
    want = NAMES[name](lambda x: pairs(func, x), POINTS)
    tolerance = 1e-6 if dtype == torch.float64 else 0.05
    assert (got - want).abs().max() <= tolerance * want.abs().max()


WEIGHTS = torch.linspace(-1, 1, 8, dtype=torch.float64)
LAYERS = {
    "rms_norm": lambda x: F.rms_norm(x, (8,)),
    "rms_norm with eps": lambda x: F.rms_norm(x, (8,), eps=1e-3),
    "layer_norm": lambda x: F.layer_norm(x, (8,)),
    "group_norm": lambda x: F.group_norm(x[None], 2),
    "instance_norm": lambda x: F.instance_norm(x.reshape(1, 2, 4)),
    "norm": lambda x: x.norm() * x,
    "norm, p=3": lambda x: x.norm(3) * x,
    "weight_norm": lambda x: torch._weight_norm(x.reshape(2, 4), x[:2, None] + 1),
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("size", [2.0**-5, 2.0**5])
def test_layers_are_computed_in_float32(layer, size, dtype):
    def func(x):
        return (LAYERS[layer](size * x).reshape(-1) * WEIGHTS.to(x.dtype)).sum()

    point = (torch.arange(8) * 2.4).sin().to(dtype)
    want = RECIPES["hessian"]["hessian_forward_over_reverse"](func)(point.double())
    for name, recipe in RECIPES["hessian"].items():
        got = recipe(func)(point).double()
        assert (got - want).abs().max() <= 0.06 * want.abs().max(), name
