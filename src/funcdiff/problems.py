"""Functions and networks with derivatives written by hand: what tests compare with and tutorials explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Problem:
    """A function of one tensor, with its Jacobian and Hessian written by hand.

    Attributes:
        name: What the function is, in a few words.
        func: The function.
        jacobian: Its Jacobian, with the shape of the output, then the input.
        hessian: Its Hessian, with the shape of the output, then the input twice.
    """

    name: str
    func: Callable[[Tensor], Tensor]
    jacobian: Callable[[Tensor], Tensor]
    hessian: Callable[[Tensor], Tensor]


def linear_map(weight: Tensor) -> Problem:
    """The function A x. Its Jacobian is A, and its Hessian is zero."""
    outputs, inputs = weight.shape
    return Problem(
        "linear map",
        lambda x: weight @ x,
        lambda x: weight,
        lambda x: x.new_zeros(outputs, inputs, inputs),
    )


def tanh_layer(weight: Tensor, bias: Tensor) -> Problem:
    """The function y = tanh(W x + b).

    Its Jacobian is (1 - y_i^2) W_ij, and its Hessian is -2 y_i (1 - y_i^2) W_ij W_ik.
    """

    def jacobian(x: Tensor) -> Tensor:
        y = torch.tanh(weight @ x + bias)
        return (1 - y**2)[:, None] * weight

    def hessian(x: Tensor) -> Tensor:
        y = torch.tanh(weight @ x + bias)
        return torch.einsum("i,ij,ik->ijk", -2 * y * (1 - y**2), weight, weight)

    return Problem("tanh of a linear map", lambda x: torch.tanh(weight @ x + bias), jacobian, hessian)


def quadratic_form(matrix: Tensor) -> Problem:
    """The function x^T A x. Its gradient is (A + A^T) x, and its Hessian A + A^T."""
    symmetric = matrix + matrix.T
    return Problem("quadratic form", lambda x: x @ matrix @ x, lambda x: symmetric @ x, lambda x: symmetric)


def quadratic_plus_cubic(matrix: Tensor, coefficients: Tensor) -> Problem:
    """The function x^T A x + sum_i c_i x_i^3.

    Its gradient is (A + A^T) x + 3 c x^2, and its Hessian is A + A^T + 6 diag(c x).
    """
    symmetric = matrix + matrix.T
    return Problem(
        "quadratic plus cubic",
        lambda x: x @ matrix @ x + (coefficients * x**3).sum(),
        lambda x: symmetric @ x + 3 * coefficients * x**2,
        lambda x: symmetric + 6 * torch.diag(coefficients * x),
    )


def softmax_cross_entropy(label: int) -> Problem:
    """The function -log p_label with p = softmax(x).

    Its gradient is p - e_label, and its Hessian is diag(p) - p p^T.
    """

    def jacobian(x: Tensor) -> Tensor:
        truth = torch.zeros_like(x)
        truth[label] = 1
        return x.softmax(0) - truth

    def hessian(x: Tensor) -> Tensor:
        p = x.softmax(0)
        return torch.diag(p) - torch.outer(p, p)

    return Problem("softmax cross-entropy", lambda x: -x.log_softmax(0)[label], jacobian, hessian)


def sine_sum() -> Problem:
    """The sum of sin(x_i). Its gradient is cos(x), and its Hessian -diag(sin(x)). x may have the shape ()."""

    def hessian(x: Tensor) -> Tensor:
        return -torch.diag(x.sin().reshape(-1)).reshape(x.shape + x.shape)

    return Problem("sine sum", lambda x: x.sin().sum(), torch.cos, hessian)


def two_layers(inner: Tensor, shift: Tensor, outer: Tensor) -> Problem:
    """The function V t with t = tanh(W x + b).

    Its Jacobian is V diag(1 - t^2) W, and its Hessian is sum_h -2 V_ih t_h (1 - t_h^2) W_hj W_hk.
    """

    def jacobian(x: Tensor) -> Tensor:
        t = torch.tanh(inner @ x + shift)
        return outer * (1 - t**2) @ inner

    def hessian(x: Tensor) -> Tensor:
        t = torch.tanh(inner @ x + shift)
        return torch.einsum("ih,h,hj,hk->ijk", outer, -2 * t * (1 - t**2), inner, inner)

    return Problem("two-layer network", lambda x: outer @ torch.tanh(inner @ x + shift), jacobian, hessian)


def surface(x: Tensor) -> Tensor:
    r"""An analytic vector function of two variables, for any number of points at once.

    .. math::

        F(x_1, x_2) = \begin{pmatrix}
            \sin(2 x_1) \, \cos(\pi x_2) \\
            \exp\left(-x_1^2 - x_2^2\right) \\
            x_1^2 x_2 + \tfrac{1}{3} x_2^3
        \end{pmatrix}

    The argument has the shape (..., 2), and the result the shape (..., 3). `surface_jacobian` and `surface_hessian`
    are its derivatives.

    Example:
        >>> import torch
        >>> from funcdiff.problems import surface
        >>> surface(torch.zeros(2))
        tensor([0., 1., 0.])
    """
    a, b = x.unbind(-1)
    return torch.stack(
        [torch.sin(2 * a) * torch.cos(torch.pi * b), torch.exp(-(a**2) - b**2), a**2 * b + b**3 / 3], dim=-1
    )


def surface_jacobian(x: Tensor) -> Tensor:
    r"""The first derivatives of `surface`, written by hand. The result has the shape (..., 3, 2).

    .. math::

        J = \begin{pmatrix}
            2 \cos(2 x_1) \cos(\pi x_2) & -\pi \sin(2 x_1) \sin(\pi x_2) \\
            -2 x_1 F_2 & -2 x_2 F_2 \\
            2 x_1 x_2 & x_1^2 + x_2^2
        \end{pmatrix}
    """
    a, b = x.unbind(-1)
    s, c, p = torch.sin(2 * a), torch.cos(2 * a), torch.pi
    g = torch.exp(-(a**2) - b**2)
    entries = [
        [2 * c * torch.cos(p * b), -p * s * torch.sin(p * b)],
        [-2 * a * g, -2 * b * g],
        [2 * a * b, a**2 + b**2],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)


def surface_hessian(x: Tensor) -> Tensor:
    r"""The second derivatives of `surface`, written by hand. The result has the shape (..., 3, 2, 2).

    .. math::

        H_1 = \begin{pmatrix}
            -4 F_1 & -2 \pi \cos(2 x_1) \sin(\pi x_2) \\ \cdot & -\pi^2 F_1
        \end{pmatrix}, \quad
        H_2 = F_2 \begin{pmatrix} 4 x_1^2 - 2 & 4 x_1 x_2 \\ \cdot & 4 x_2^2 - 2 \end{pmatrix}, \quad
        H_3 = 2 \begin{pmatrix} x_2 & x_1 \\ \cdot & x_2 \end{pmatrix}
    """
    a, b = x.unbind(-1)
    f, g, _ = surface(x).unbind(-1)
    mixed = -2 * torch.pi * torch.cos(2 * a) * torch.sin(torch.pi * b)
    upper = [
        (-4 * f, mixed, -(torch.pi**2) * f),
        ((4 * a**2 - 2) * g, 4 * a * b * g, (4 * b**2 - 2) * g),
        (2 * b, 2 * a, 2 * b),
    ]
    return torch.stack(
        [torch.stack([torch.stack([h11, h12], -1), torch.stack([h12, h22], -1)], -2) for h11, h12, h22 in upper], -3
    )


def study_network(
    sizes: Sequence[int] = (5, 1000, 1000, 25),
    *,
    activation: Callable[[], nn.Module] = nn.ELU,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Make a fully connected network in evaluation mode. By default, it is the one of the tutorials about cost.

    Example:
        >>> from funcdiff.problems import study_network
        >>> network = study_network((5, 8, 3))
        >>> [tuple(parameter.shape) for parameter in network.parameters()]
        [(8, 5), (8,), (3, 8), (3,)]

    Args:
        sizes: The widths of the layers, from the input to the output.
        activation: A function that makes the layer between two linear layers.
        seed: The seed of the weights. The global random state of torch does not change.
        dtype: The dtype of the weights. By default, that of torch.

    Returns:
        The network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs, dtype=dtype), activation()]
    return nn.Sequential(*layers[:-1]).eval()
