"""What the tests of Taylor mode share."""

from functools import partial

import torch
from torch import nn

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)


def point(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def central_differences(func, x, step=1e-5):
    """The Hessian (m, n, n) of func: (n,) -> (m,) from differences of reverse-mode gradients."""
    rows = []
    for direction in torch.eye(x.numel(), dtype=x.dtype):
        slopes = []
        for sign in (1, -1):
            moved = (x + sign * step * direction).requires_grad_()
            outputs = func(moved)
            slopes.append(torch.stack([torch.autograd.grad(y, moved, retain_graph=True)[0] for y in outputs]))
        rows.append((slopes[0] - slopes[1]) / (2 * step))
    return torch.stack(rows, -1)


def traces(hessian):
    return hessian.diagonal(dim1=-2, dim2=-1).sum(-1)


def mlp(activation, *middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), activation, *middle, nn.Linear(6, 6), activation, nn.Linear(6, 3)).double()
