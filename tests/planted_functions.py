"""Custom autograd functions that compute x^3, with a fault each that a point, a row or a branch may hide."""

import torch
from custom_functions import Cubed


def cube(jvp=None, backward=None, rows=None):
    """A copy with other rules; `rows(function, x)` is that for vmap."""

    class Planted(Cubed):
        generate_vmap_rule = rows is None

    if jvp:
        Planted.jvp = staticmethod(lambda ctx, v: jvp(ctx.saved_tensors[0]) * v)
    if backward:
        Planted.backward = staticmethod(lambda ctx, u: backward(ctx.saved_tensors[0]) * u)
    if rows:
        Planted.vmap = staticmethod(lambda info, in_dims, x: (rows(Planted.apply, x.movedim(in_dims[0], 0)), 0))
    return Planted.apply


def every(func, x):
    """Right: the operation is elementwise."""
    return func(x)


def first(func, x):
    """Of the first row, for all."""
    return func(x[:1].expand_as(x))


def beyond(func, x):
    """Wrong from the third row on."""
    return torch.cat([func(x[:2]), 1.1 * func(x[2:])])


def forgetful(x):
    return 3 * x.detach() ** 2


RIGHT = {"right": cube(), "right, with a rule for vmap": cube(rows=every)}
FAULTY = {
    "forward mode": cube(jvp=lambda x: x**2),
    "forward mode, with a rule for vmap": cube(jvp=lambda x: x**2, rows=every),
    "forward mode in a branch": cube(jvp=lambda x: torch.where(x > 0.8, 2.0, 3.0) * x**2),
    "forward mode by a small part": cube(jvp=lambda x: 3.00003 * x**2),
    "all rows but the first": cube(rows=first),
    "rows beyond the second": cube(rows=beyond),
    "second derivatives": cube(backward=forgetful),
    "second derivatives, with a rule for vmap": cube(backward=forgetful, rows=every),
}
