"""A small network in the place of a function: samples of the function, and training that fits them in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.functional import mse_loss
from tqdm import tqdm  # type: ignore[import-untyped] # tqdm ships no types

STRIDE = 10  # iterations between two points of the learning curve


@dataclass(frozen=True)
class LearningCurve:
    """How the error of a network fell during training, as the mean square over all values.

    Attributes:
        iterations: The number of iterations done at each point.
        training: The error on the training samples.
        held_out: The error on the samples that were not used for training. Empty if there are none.
    """

    iterations: tuple[int, ...]
    training: tuple[float, ...]
    held_out: tuple[float, ...] = ()


def uniform(n: int, low: Sequence[float], high: Sequence[float], *, seed: int = 0) -> Tensor:
    """Draw random points, evenly distributed in a box.

    Example:
        >>> from funcdiff.surrogates import uniform
        >>> x = uniform(1000, [0.0, 2.0], [1.0, 4.0])
        >>> x.amin(0).round(), x.amax(0).round()
        (tensor([0., 2.]), tensor([1., 4.]))

    Args:
        n: The number of points.
        low: The lower corner of the box.
        high: The upper corner of the box.
        seed: The seed of the draw. The global random state of torch does not change.

    Returns:
        The points, of shape (n, inputs), in the default dtype and on the default device of torch.
    """
    corner, opposite = torch.tensor(low), torch.tensor(high)
    drawn = torch.rand(n, len(low), generator=torch.Generator().manual_seed(seed), device="cpu")  # the same everywhere
    return corner + (opposite - corner) * drawn.to(corner.device)


def train(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    slopes: Tensor | None = None,
    held_out: tuple[Tensor, Tensor] | None = None,
    iterations: int = 600,
    decay: float = 0.0,
) -> LearningCurve:
    """Train a network on samples of a function, with L-BFGS on all samples at once.

    This suits a small network with a few hundred samples. No learning rate is needed, and nothing is drawn at random,
    so the same start gives the same result. One thread is used, so that sums keep their order. A terminal shows a
    progress bar.

    Example:
        >>> import torch
        >>> from funcdiff.problems import study_network
        >>> from funcdiff.surrogates import train, uniform
        >>> x = uniform(50, [-1.0], [1.0])
        >>> curve = train(study_network((1, 8, 1), activation=torch.nn.Tanh), x, torch.sin(x), iterations=100)
        >>> curve.training[-1] < 1e-5
        True

    Args:
        network: The network, from (B, inputs) to (B, outputs), each row by itself. Its parameters are changed in place.
        x: The samples, of shape (B, inputs).
        y: The values of the function there, of shape (B, outputs).
        slopes: The Jacobians of the function there, of shape (B, outputs, inputs), if the network should learn them too
            (Sobolev training). Each iteration then needs one more forward pass for each input, and the backward pass
            through it.
        held_out: Samples and values on which the error is measured, but which are not used for training.
        iterations: The number of iterations. Each needs little more than one forward and one backward pass.
        decay: The weight of the mean square of the parameters in the loss.

    Returns:
        The learning curve.

    Raises:
        ValueError: `y` or `slopes` has another shape than the network returns, or `iterations` is below 1.
    """
    if iterations < 1:
        raise ValueError(f"expected iterations >= 1, got {iterations}")
    with torch.no_grad():
        _check_shape("y", y, network(x).shape)
    if slopes is not None:
        _check_shape("slopes", slopes, (*y.shape, x.shape[1]))
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=STRIDE, history_size=20, line_search_fn="strong_wolfe", tolerance_change=0
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = mse_loss(network(x), y)
        if slopes is not None:
            total = total + mse_loss(jacobians(network, x), slopes)
        if decay:
            total = (
                total + decay * torch.cat([parameter.flatten() for parameter in network.parameters()]).square().mean()
            )
        total.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return total

    watched = [(x, y)] if held_out is None else [(x, y), held_out]
    done, errors = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for start in tqdm(range(0, iterations, STRIDE), desc="training", disable=None, leave=False):
            optimizer.step(loss)  # type: ignore[no-untyped-call] # torch leaves it untyped
            done.append(start + STRIDE)
            with torch.no_grad():
                errors.append([mse_loss(network(points), values).item() for points, values in watched])
    finally:
        torch.set_num_threads(threads)
    return LearningCurve(tuple(done), *(tuple(series) for series in zip(*errors, strict=True)))


def jacobians(network: nn.Module, x: Tensor) -> Tensor:
    """Compute one Jacobian for each row of a batch, with one forward pass for each input.

    You can backpropagate through the result. There is no vmap over the rows, so a small network needs little time.

    Args:
        network: The network, from (B, inputs) to (B, outputs), each row by itself.
        x: The batch, of shape (B, inputs).

    Returns:
        The Jacobians, of shape (B, outputs, inputs).
    """
    units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    columns: Tensor = vmap(lambda unit: jvp(network, (x,), (unit.expand_as(x),))[1], out_dims=-1)(units)
    return columns


def _check_shape(name: str, given: Tensor, expected: Sequence[int]) -> None:
    if given.shape != tuple(expected):
        raise ValueError(f"expected {name} of shape {tuple(expected)}, as the network gives; got {tuple(given.shape)}")
