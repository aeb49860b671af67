"""Random vectors: how many, from which generator, and on which device."""

from __future__ import annotations

import torch
from torch import Tensor

from funcdiff._torch.transforms import outside, plain_allowed


def check_samples(samples: int | None) -> None:
    """Refuse what is neither a positive number nor None."""
    if samples is not None and (type(samples) is not int or samples < 1):
        raise ValueError(f"expected samples to be a positive int, or None for the exact result, got {samples!r}")


def source(generator: torch.Generator | None, like: Tensor) -> torch.device:
    """The device to draw on: that of the generator, or else that of the tensor."""
    return like.device if generator is None else generator.device


def random_vectors(
    size: int, count: int, like: Tensor, generator: torch.Generator | None, *, normal: bool = False
) -> Tensor:
    """Random signs, or normal numbers, (size, count); inside transforms, all that is batched there shares them."""

    def draw() -> Tensor:
        device = source(generator, like)
        if normal:
            return torch.randn((size, count), generator=generator, device=device)
        return torch.randint(2, (size, count), generator=generator, dtype=like.dtype, device=device).mul_(2).sub_(1)

    if plain_allowed() or torch.compiler.is_compiling():
        return draw().to(like)
    with outside():
        vectors = draw()
    return vectors.to(like.device, like.dtype)
