"""Inverses, determinants, factorisations and eigenvalues, differentiated by the equation that each solves.

NOTE: the first and second derivatives of ``F(A, Y) = 0`` are linear equations for those of ``Y``, which all have the
same left side: with the value's inverse or eigenvectors at hand, every direction costs a few products.

    solve:     A Y = B         A Y_ij = B_ij - A_ij Y - A_i Y_j - A_j Y_i
    cholesky:  L L^T = A       L_ij L^T + L L_ij^T = A_ij - L_i L_j^T - L_j L_i^T
    logdet:                    l_i = tr(A^-1 A_i),  l_ij = tr(A^-1 A_ij) - tr(A^-1 A_i A^-1 A_j)

torch 2.13 gets second derivatives of det, slogdet and solve wrong in forward mode, and even in reverse mode from the
second row of a batch on. Those of inv, lu_factor, cholesky and matmul, of which their forms here are made, are right.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcdiff._jets.jet import Jet, carry, check_grad_mode, jet_of, on, plain
from funcdiff._jets.operations import form, named, rule, unaltered
from funcdiff._jets.rules import aligned

_Slogdet = torch.return_types.linalg_slogdet  # type: ignore[attr-defined]  # torch's stub leaves it out
_Eigh = torch.return_types.linalg_eigh  # type: ignore[attr-defined]  # torch's stub leaves it out


def _of_both(function: Callable[[list[Any]], Tensor], a: list[Any], b: list[Any]) -> tuple[Tensor, Tensor]:
    """The function of both sides of a pair: for unmixed derivatives one."""
    left = function(a)
    return left, left if b is a else function(b)


def _solved(matrix: Any, right: Any = None) -> Any:
    """The solution of ``matrix @ y = right``, for matrices; the inverse where nothing is given."""
    matrix, right = jet_of(matrix), jet_of(right)
    inverse: Tensor = torch.linalg.inv(plain(matrix))
    if not isinstance(matrix, Jet):
        return inverse if right is None else on(torch.matmul, inverse, right)
    check_grad_mode(matrix.pairs.grad_enabled)
    value: Tensor = inverse if right is None else inverse @ plain(right)

    def differential(slope: Tensor, *rights: Tensor) -> Tensor:
        change = aligned(slope, value) @ value
        return inverse @ (aligned(rights[0], value) - change if rights else -change)

    def curvature(a: list[Any], b: list[Any]) -> Tensor:
        left, right = _of_both(lambda stacks: differential(*stacks), a, b)
        return -(inverse @ (aligned(a[0], value) @ right + aligned(b[0], value) @ left))

    return carry([matrix, right] if isinstance(right, Jet) else [matrix], value, differential, curvature)


@form(*named("inv inverse"), twice=True)
def _inv(func: Any, args: Any, kwargs: Any) -> Any:
    return _solved(*args, *kwargs.values())


@form(torch.linalg.solve, twice=True)
def _solve(func: Any, args: Any, kwargs: Any) -> Any:
    def solve(A: Any, B: Any, *, left: bool = True) -> Any:  # noqa: N803  # as torch spells them
        vector = B.dim() == 1 or (B.dim() == A.dim() - 1 and B.shape == A.shape[:-1])
        if vector:
            return _solved(A, on(torch.unsqueeze, B, -1)).squeeze(-1)
        return _solved(A, B) if left else _solved(A.mT, B.mT).mT

    return solve(*args, **kwargs)


@rule("solve_triangular")
def _solve_triangular(func: Any, args: Any, kwargs: Any) -> Any:
    def solve_triangular(
        A: Any,  # noqa: N803  # as torch spells it
        B: Any,  # noqa: N803  # as torch spells it
        *,
        upper: bool,
        left: bool = True,
        unitriangular: bool = False,
    ) -> Any:
        A = on(torch.triu if upper else torch.tril, A, int(unitriangular) * (1 if upper else -1))  # noqa: N806  # as torch spells it
        if unitriangular:
            A = on(torch.add, A, torch.eye(A.shape[-1], dtype=A.dtype, device=A.device))  # noqa: N806  # as torch spells it
        return _solved(A, B) if left else _solved(A.mT, B.mT).mT

    return solve_triangular(*args, **kwargs)


def _parity(pivots: Tensor) -> Tensor:
    """The sign of the permutation that exchanges row i with row ``pivots[i] - 1``, in turn."""
    stays = torch.arange(1, pivots.shape[-1] + 1, device=pivots.device)
    return 1 - 2 * ((pivots != stays).sum(-1) % 2)


def _log_determinant(matrix: Any) -> tuple[Tensor, Any]:
    """The sign, and the logarithm of the absolute value."""
    matrix = jet_of(matrix)
    factors, pivots, _ = torch.linalg.lu_factor_ex(plain(matrix))
    diagonal = factors.diagonal(dim1=-2, dim2=-1)
    sign = _parity(pivots) * diagonal.sign().prod(-1)
    value = diagonal.abs().log().sum(-1)
    if not isinstance(matrix, Jet):
        return sign, value
    check_grad_mode(matrix.pairs.grad_enabled)
    inverse: Tensor = torch.linalg.inv(matrix.value)

    def curvature(a: list[Any], b: list[Any]) -> Tensor:
        left, right = _of_both(lambda stacks: inverse @ stacks[0], a, b)
        return -(left * right.mT).sum((-2, -1))

    return sign, carry([matrix], value, lambda t: (inverse.mT * t).sum((-2, -1)), curvature)


@form(*named("slogdet"), twice=True)
def _slogdet(func: Any, args: Any, kwargs: Any) -> Any:
    return _Slogdet(_log_determinant(*args, *kwargs.values()))


@form(*named("logdet"), twice=True)
def _logdet(func: Any, args: Any, kwargs: Any) -> Any:
    sign, value = _log_determinant(*args, *kwargs.values())
    return on(torch.masked_fill, value, sign < 0, float("nan"))


def _minors(A: Any) -> Any:  # noqa: N803  # as torch spells it
    """The determinant of up to three rows as a polynomial: fastest, and right where it is zero."""
    if A.shape[-1] == 1:
        return A[..., 0, 0]
    if A.shape[-1] == 2:
        return A[..., 0, 0] * A[..., 1, 1] - A[..., 0, 1] * A[..., 1, 0]
    return on(torch.sum, on(torch.linalg.cross, A[..., 0, :], A[..., 1, :]) * A[..., 2, :], -1)


def _regular(matrix: Any) -> Any:
    """The determinant of a matrix that has an inverse."""
    matrix = jet_of(matrix)
    if isinstance(matrix, Jet):
        sign, value = _log_determinant(matrix)
        return on(torch.exp, value) * sign
    factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    return factors.diagonal(dim1=-2, dim2=-1).prod(-1) * _parity(pivots)


@form(*named("det"))
def _det(func: Any, args: Any, kwargs: Any) -> Any:
    """NOTE: The second derivative of a determinant is finite where the inverse is not; plain autograd may get it wrong.

    From the singular vectors of the value, which are constants here, the three smallest singular values come last. The
    determinant is that of the block before them, which has an inverse, times that of its Schur complement.
    """

    def det(A: Any) -> Any:  # noqa: N803  # as torch spells it
        if A.shape[-1] <= 3:
            return _minors(A)
        A = jet_of(A)  # noqa: N806  # as torch spells it
        value = plain(A).detach()
        if value.is_complex():
            return _regular(A)
        left, _, right = torch.linalg.svd(value)
        M = on(torch.matmul, on(torch.matmul, left.mT, A), right.mT)  # noqa: N806  # as torch spells it
        block = M[..., :-3, :-3]
        schur = M[..., -3:, -3:] - on(torch.matmul, M[..., -3:, :-3], _solved(block, M[..., :-3, -3:]))
        return _regular(block) * _minors(schur) * (_regular(left) * _regular(right)).sign()

    return det(*args, *kwargs.values())


@rule("cholesky")
def _cholesky(func: Any, args: Any, kwargs: Any) -> Any:
    """An unsymmetric direction counts by its symmetric part, as in torch's reverse mode."""
    matrix, upper = args[0], (*args[1:], *kwargs.values(), False)[0]
    check_grad_mode(matrix.pairs.grad_enabled)
    factor: Tensor = torch.linalg.cholesky(matrix.value)
    inverse: Tensor = torch.linalg.inv(factor)

    def differential(t: Tensor) -> Tensor:
        change = inverse @ (t + t.mT) @ inverse.mT / 4
        return factor @ (change.tril() + change.tril(-1))

    def curvature(a: list[Any], b: list[Any]) -> Tensor:
        left, right = _of_both(lambda stacks: differential(stacks[0]), a, b)
        return -2 * differential(left @ right.mT)

    lower = carry([matrix], factor, differential, curvature)
    return lower.mT if upper else lower


@form(*named("cholesky_inverse"), twice=True)
def _cholesky_inverse(func: Any, args: Any, kwargs: Any) -> Any:
    def cholesky_inverse(input: Any, upper: bool = False) -> Any:
        inverse = _solved(on(torch.triu, input).mT if upper else on(torch.tril, input))
        return on(torch.matmul, inverse.mT, inverse)

    return cholesky_inverse(*args, **kwargs)


@rule("cholesky_solve")
def _cholesky_solve(func: Any, args: Any, kwargs: Any) -> Any:
    def cholesky_solve(B: Any, L: Any, upper: bool = False) -> Any:  # noqa: N803  # as torch spells them
        factor = on(torch.triu, L).mT if upper else on(torch.tril, L)
        return _solved(factor.mT, _solved(factor, B))

    return cholesky_solve(*args, **kwargs)


def _by_factors(factors: Any, pivots: Tensor, right: Any, *, transposed: bool = False) -> Any:
    """The solution of ``P L U y = right``, or of its transpose, from both factors in one matrix."""
    order: Tensor = torch.lu_unpack(plain(factors).detach(), pivots, unpack_data=False)[0]
    ones = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    lower, upper = on(torch.add, on(torch.tril, factors, -1), ones), on(torch.triu, factors)
    if transposed:
        return on(torch.matmul, order, _solved(lower.mT, _solved(upper.mT, right)))
    return _solved(upper, _solved(lower, on(torch.matmul, order.mT, right)))


@form(torch.linalg.lu_solve)
def _lu_solve(func: Any, args: Any, kwargs: Any) -> Any:
    def lu_solve(LU: Any, pivots: Tensor, B: Any, *, left: bool = True, adjoint: bool = False) -> Any:  # noqa: N803  # as torch spells it
        if torch.is_complex(plain(LU)) or torch.is_complex(plain(B)):
            return unaltered(func, args, kwargs)
        if left:
            return _by_factors(LU, pivots, B, transposed=adjoint)
        return _by_factors(LU, pivots, B.mT, transposed=not adjoint).mT

    return lu_solve(*args, **kwargs)


def _eigen(matrix: Jet, uplo: str) -> Any:
    """Eigenvalues w and eigenvectors V of a symmetric matrix, with w distinct.

    With V_i = V C_i for skew C_i, w_i and w_ij are the diagonals, and C_i and V^T V_ij beside it the other entries over
    the differences of w, of V^T A_i V and of V^T A_ij V + M_i C_j + M_j C_i - C_i w_j - C_j w_i. The diagonal of
    V^T V_ij keeps the vectors' length: C_i C_j's.
    """
    check_grad_mode(matrix.pairs.grad_enabled)
    values, vectors = torch.linalg.eigh(matrix.value, uplo)
    gaps = values.unsqueeze(-2) - values.unsqueeze(-1)
    diagonal = torch.eye(gaps.shape[-1], dtype=torch.bool, device=gaps.device)
    scale = gaps.masked_fill(diagonal, 1).reciprocal().masked_fill(diagonal, 0)

    def rotated(t: Tensor) -> Any:
        return vectors.mT @ ((t + t.mT) / 2) @ vectors

    def results(change: Any, length: Any = 0.0) -> tuple[Tensor, Tensor]:
        return change.diagonal(dim1=-2, dim2=-1), vectors @ (change * scale + length)

    def curvature(a: list[Any], b: list[Any]) -> tuple[Tensor, Tensor]:
        m, n = rotated(a[0]), rotated(b[0])
        c, d = m * scale, n * scale
        dm, dn = (x.diagonal(dim1=-2, dim2=-1).unsqueeze(-2) for x in (m, n))
        return results(m @ d + n @ c - c * dn - d * dm, (c @ d).masked_fill(~diagonal, 0))

    return carry([matrix], (values, vectors), lambda t: results(rotated(t)), curvature)


@rule("eigh")
def _eigh(func: Any, args: Any, kwargs: Any) -> Any:
    return _Eigh(_eigen(args[0], (*args[1:], *kwargs.values(), "L")[0]))


@rule("eigvalsh")
def _eigvalsh(func: Any, args: Any, kwargs: Any) -> Any:
    return _eigen(args[0], (*args[1:], *kwargs.values(), "L")[0])[0]
