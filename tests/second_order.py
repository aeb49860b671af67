"""Recipes of second derivatives held to central differences: alone, in a batch, and differentiated once more."""

import torch
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._automatic import fallback


def _pushed(func):
    """The Hessian of a function of one tensor by products."""

    def hessian(x):
        axes = torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
        return torch.stack([fd.hvp(func, (x,), (axis,)) for axis in axes])

    return hessian


HESSIANS = {
    "hessian": fd.hessian,
    "hessian_taylor": fd.hessian_taylor,
    "hvp": _pushed,
    **fallback.HESSIANS,
}
TRACES = {"hessian_diagonal": lambda func: lambda x: fd.hessian_diagonal(func)(x).sum(), "laplacian": fd.laplacian}


def differences(func, x, step=1e-5):
    """The derivative of func at x along all entries of x, stacked."""
    axes = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    return torch.stack([(func(x + axis) - func(x - axis)) / (2 * step) for axis in axes])


def slope(func):
    """The gradient by plain autograd, flat."""

    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(func(x), x)[0].flatten()

    return gradient


def check(func, rows, precision=1e-7, once_more=tuple({**HESSIANS, **TRACES})):
    """Hold every recipe to differences on a function of one row to a number, at all of some rows.

    Args:
        func: The function.
        rows: Points, stacked.
        precision: Of the differences.
        once_more: The recipes that are to be differentiated as well.
    """
    size = rows[0].numel()
    hessians = torch.stack([differences(slope(func), row) for row in rows])
    traces = hessians.diagonal(dim1=-2, dim2=-1).sum(-1)
    slopes = torch.stack([differences(fd.laplacian(func), row) for row in rows])

    def close(got, expected, precision):
        assert_close(got, expected, rtol=precision, atol=precision * (1 + expected.abs().max().item()))

    for name, recipe in {**HESSIANS, **TRACES}.items():
        flat = (lambda x, recipe=recipe: recipe(func)(x).reshape(size, size)) if name in HESSIANS else recipe(func)
        trace = (lambda x, flat=flat: flat(x).trace()) if name in HESSIANS else flat
        expected = hessians if name in HESSIANS else traces
        close(torch.stack([flat(row) for row in rows]), expected, precision)
        close(vmap(flat)(rows), expected, precision)
        if name in once_more:
            alone, batch = (rows.clone().requires_grad_() for _ in range(2))
            total = sum(trace(row) for row in alone)
            close(torch.autograd.grad(total, alone)[0].flatten(1), slopes, 100 * precision)
            close(torch.autograd.grad(vmap(trace)(batch).sum(), batch)[0].flatten(1), slopes, 100 * precision)
