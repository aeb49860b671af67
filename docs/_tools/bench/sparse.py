"""The benchmark's sparse matrices: of a stencil in two dimensions, and of a chain. Each way returns the entries."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.func import grad, hessian, jacrev, jvp, vmap

import funcdiff as fd
from _tools.bench import jax_peer
from _tools.bench.case import Case, Ways, at_least
from funcdiff._sparse.pattern import Pattern

BY_HAND = "the same products by torch.func, nothing found or checked"


def laplacian(u: Tensor) -> Tensor:
    """Differences of neighbours on a periodic grid."""
    return u.roll(1, 0) + u.roll(-1, 0) + u.roll(1, 1) + u.roll(-1, 1) - 4 * u


def brusselator(y: Tensor) -> Tensor:
    """Two substances that react and diffuse, as a vector."""
    side = int((len(y) // 2) ** 0.5)
    u, v = y.view(2, side, side)
    return torch.stack([1 + u * u * v - 4.4 * u + 0.1 * laplacian(u), 3.4 * u - u * u * v + 0.1 * laplacian(v)]).view(
        -1
    )


def rosenbrock(x: Tensor) -> Tensor:
    """A chain of narrow valleys."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def stencil_jacobian(y: Tensor) -> Case:
    """The Jacobian of the Brusselator."""
    pattern = fd.jacobian_pattern(brusselator, y)
    dense = jacrev(brusselator)
    ways = _ways("jacobian_sparse", fd.jacobian_sparse(brusselator), y)
    ways |= {
        BY_HAND: _by_hand(pattern, lambda y: lambda v: jvp(brusselator, (y,), (v,))[1]),
        "torch.func.jacrev, all entries": lambda y: dense(y)[pattern.rows, pattern.columns],
    }
    return Case(
        f"Sparse Jacobian of a stencil, {len(y)} inputs",
        ways | _differences(pattern) | jax_peer.sparse_jacobian(y, pattern),
        (y,),
        "jacobian_sparse",
        goals=at_least(200, ("torch.func.jacrev, all entries",), "jacobian_sparse"),
        bare=BY_HAND,
    )


def chain_hessian(x: Tensor) -> Case:
    """The Hessian of the Rosenbrock chain."""
    pattern = fd.hessian_pattern(rosenbrock, x)
    dense = hessian(rosenbrock)
    ways = _ways("hessian_sparse", fd.hessian_sparse(rosenbrock), x)
    ways |= {
        BY_HAND: _by_hand(pattern, lambda x: lambda v: jvp(grad(rosenbrock), (x,), (v,))[1]),
        "torch.func.hessian, all entries": lambda x: dense(x)[pattern.rows, pattern.columns],
    }
    return Case(
        f"Sparse Hessian of a chain, {len(x)} inputs",
        ways | jax_peer.sparse_hessian(x, pattern),
        (x,),
        "hessian_sparse",
        goals=at_least(200, ("torch.func.hessian, all entries",), "hessian_sparse"),
        bare=BY_HAND,
    )


def _ways(name: str, transform: Callable[[Tensor], Tensor], x: Tensor) -> Ways:
    """As it comes, prepared, and prepared for the compiler; each keeps the pattern from its first call."""
    line = fd.prepare(transform, x)
    compiled = torch.compile(line)
    return {
        name: lambda x: transform(x).values(),
        f"prepare of {name}": lambda x: line(x).values(),
        f"torch.compile of prepare of {name}": lambda x: compiled(x).values(),
    }


def _by_hand(pattern: Pattern, product: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    columns, _, places = pattern.ways[0].on(torch.device("cpu"))
    seeds = (columns == torch.arange(pattern.passes)[:, None]).double()
    return lambda x: vmap(product(x))(seeds).reshape(-1)[places]


def _differences(pattern: Pattern) -> Ways:
    """What SciPy's solvers do with a pattern, by differences that are exact enough to be compared."""
    if find_spec("scipy") is None:
        return {}
    from scipy.optimize._numdiff import approx_derivative, group_columns  # no public name does this alone

    given = pattern.scipy(), group_columns(pattern.scipy())

    def difference(y: Tensor) -> Tensor:
        found = approx_derivative(
            lambda y: brusselator(torch.from_numpy(y)).numpy(), y.numpy(), method="3-point", sparsity=given
        ).tocsr()
        return torch.from_numpy(found[pattern.rows, pattern.columns]).view(-1)

    return {f"SciPy {version('scipy')}, central differences for the same pattern": difference}
