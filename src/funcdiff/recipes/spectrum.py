"""The density of a symmetric matrix's eigenvalues, by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from funcdiff._calling.documented import documented
from funcdiff._calling.draws import random_vectors
from funcdiff.recipes.traces import QUANTILE, Estimate, interval, multiplied, square


@dataclass(frozen=True)
class SpectralDensity:
    """How the n eigenvalues of a matrix are distributed: points with weights, from each of k random vectors.

    `spectral_density` returns it. For a vector, each point stands for the eigenvalues near it, and its weight is their
    share. `density` makes a smooth curve of the points, and `trace` sums a function over all eigenvalues.

    Attributes:
        points: The points, of shape (k, steps). Those at the ends are close to the extreme eigenvalues.
        weights: The share of the eigenvalues near each point, of the same shape. Each row sums to 1.
        size: The number of eigenvalues n.
        products: The number of products that were used.
    """

    points: Tensor
    weights: Tensor
    size: int
    products: int

    def density(self, at: Tensor, width: float) -> Estimate:
        """The density of the eigenvalues at the values `at`, a vector: a curve to draw, whose area is 1.

        Each point is drawn as a normal curve of standard deviation `width`. The result is an `Estimate` whose `value`
        and `error` have the shape of `at`.
        """
        distance = (at[:, None, None] - self.points) / width
        height = torch.exp(-(distance**2) / 2) / (width * (2 * torch.pi) ** 0.5)
        return self._mean((height * self.weights).sum(-1))

    def trace(self, func: Callable[[Tensor], Tensor]) -> Estimate:
        """The sum of `func` over all eigenvalues. With `torch.log`, it is the logarithm of the determinant.

        The result is an `Estimate` whose `value` and `error` are scalars.
        """
        values = torch.where(self.weights > 0, func(self.points), 0.0)
        mean = self._mean((values * self.weights).sum(-1))
        return Estimate(self.size * mean.value, self.size * mean.error, self.products)

    def _mean(self, samples: Tensor) -> Estimate:
        """The mean over the vectors, with its error."""
        found = interval(samples.double(), 0.0, self.points, self.products, QUANTILE)
        return Estimate(found.value.to(self.points), found.error.to(self.points), self.products)


@documented(
    "density",
    returns="A `SpectralDensity` with points and weights of shape (probes, steps), with fewer steps for a "
    "small matrix. Its methods return estimates with errors.",
    operator="The symmetric matrix: an operator of this package, a tensor, or any object with a `shape` and products "
    "``operator @ V``.",
    steps="The number of Lanczos steps. More steps show finer details: those wider than the whole spectrum divided "
    "by `steps`.",
    probes="The number of random vectors, at least 3. More vectors make the errors smaller.",
    generator="The random generator for the vectors. By default, the global one of torch.",
    raises={
        "TypeError": "The operator has no `shape`.",
        "ValueError": "The matrix is not square, or an option has a value that is not allowed.",
        "RuntimeError": "The matrix is not symmetric.",
    },
)
def spectral_density(
    operator: Any, *, steps: int = 40, probes: int = 10, generator: torch.Generator | None = None
) -> SpectralDensity:
    """Estimate how the eigenvalues of a symmetric matrix are distributed, from products with random vectors.

    Use it for a matrix that is too large to compute, such as the Hessian of a loss. Each random vector gives `steps`
    points on the axis of the eigenvalues, with weights: the share of the eigenvalues near the point. From these, you
    get a curve to draw, the share of large eigenvalues, or the trace of a function of the matrix.

    For the largest or smallest eigenvalues themselves, pass the operator to SciPy's ``eigsh``.

    Example:
        A tenth of the eigenvalues of this matrix are 5, and the others are 0. The weights of the points above 1 add up
        to about a tenth.

        >>> import torch
        >>> from funcdiff import spectral_density
        >>> matrix = torch.diag(torch.tensor([0.0] * 90 + [5.0] * 10))
        >>> density = spectral_density(matrix, generator=torch.Generator().manual_seed(0))
        >>> share = (density.weights * (density.points > 1)).sum(1).mean()
        >>> round(share.item(), 1)
        0.1

        A curve to draw, `curve.value` over `grid`:

        >>> grid = torch.linspace(-1, 6, 200)
        >>> curve = density.density(grid, width=0.2)
        >>> curve.value.shape, curve.error.shape
        (torch.Size([200]), torch.Size([200]))

        The logarithm of the determinant of diag(2, ..., 2) is 8 log 2 = 5.5452.

        >>> density = spectral_density(2 * torch.eye(8), generator=torch.Generator().manual_seed(0))
        >>> density.trace(torch.log).value
        tensor(5.5452)

    Method:
        Stochastic Lanczos quadrature: the products of a random vector with the matrix give a small tridiagonal matrix,
        of size `steps`. Its eigenvalues are the points. The squared first entries of its eigenvectors are the weights.
        The error is estimated from how much the random vectors differ.

    Cost:
        (`steps` + 1) times `probes` products, `probes` of them at once. As many vectors are in memory.

    Source:
        Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature" (2017). Ghorbani, Krishnan
        and Xiao, "An investigation into neural net optimization via Hessian eigenvalue density" (2019).
    """
    if steps < 1 or probes < 3:
        raise ValueError(f"expected at least 1 step and 3 probes, got {steps} and {probes}")
    size, like = square(operator)
    vectors = [random_vectors(size, probes, like, generator) / size**0.5]
    diagonals: list[Tensor] = []
    offs: list[Tensor] = []
    for step in range(min(steps, size)):
        new = multiplied(operator, like, vectors[-1])
        diagonals.append((vectors[-1] * new).sum(0))
        scale = new.norm(dim=0)
        stack = torch.stack(vectors)
        for _ in range(2):  # once more, for what rounding left
            new = new - (stack * (stack * new).sum(1, keepdim=True)).sum(0)
        length = new.norm(dim=0)
        going = length > 10 * torch.finfo(like.dtype).eps * size**0.5 * scale
        offs.append(torch.where(going, length, 0.0))  # a vector whose space is exhausted goes on as zero
        vectors.append(torch.where(going, new / length.clamp(min=torch.finfo(like.dtype).tiny), 0.0))
        if step == 0:
            _check_symmetric(operator, like, vectors[0], vectors[1], diagonals[0], offs[0])
        if not bool(going.any()):
            break
    products = probes * (len(diagonals) + 1)
    diagonal, off = torch.stack(diagonals, -1).double(), torch.stack(offs, -1).double()[:, :-1]
    matrix = torch.diag_embed(diagonal) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, bases = torch.linalg.eigh(matrix)
    return SpectralDensity(values.to(like), (bases[:, 0] ** 2).to(like), size, products)


def _check_symmetric(operator: Any, like: Tensor, q: Tensor, other: Tensor, diagonal: Tensor, off: Tensor) -> None:
    """Refuse a matrix that is not symmetric: then q^T A p differs from p^T A q."""
    back = (q * multiplied(operator, like, other)).sum(0)
    scale = torch.maximum(torch.maximum(back.abs(), off.abs()), diagonal.abs()).amax()
    if bool((back - off).abs().amax() > torch.finfo(like.dtype).eps ** 0.5 * scale):
        raise RuntimeError(
            "expected a symmetric matrix A, but p^T A q and q^T A p differ. For singular values, use A.T @ A"
        )
