"""The options that every recipe takes, in one value that is checked once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options(Mapping[str, Any]):
    """What to differentiate with respect to, and how; `recipe(func, **options)` passes all of it on."""

    argnums: int | tuple[int, ...] = 0
    has_aux: bool = False
    chunk_size: int | None = None
    randomness: str = "error"

    def __post_init__(self) -> None:
        check_argnums(self.argnums)
        check_chunk_size(self.chunk_size)
        if self.randomness not in ("error", "same", "different"):
            raise ValueError(f'expected randomness to be "error", "same" or "different", got {self.randomness!r}')

    def __iter__(self) -> Iterator[str]:
        return iter(("argnums", "has_aux", "chunk_size", "randomness"))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def check_argnums(argnums: Any) -> None:
    if type(argnums) is int:
        return
    many = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in many):
        raise TypeError(f"expected argnums to be an int or a tuple of ints, got {argnums!r}")
    if not many:
        raise ValueError("expected argnums to name at least one argument, got ()")


def check_chunk_size(chunk_size: Any) -> None:
    if chunk_size is None:
        return
    if not isinstance(chunk_size, int) or isinstance(chunk_size, bool):
        raise TypeError(
            f"expected chunk_size to be a positive int or None (all at once), got {chunk_size!r}. "
            'Only functions that choose a method, such as jacobian, batch_hessian and jacobian_sparse, accept "auto", '
            "together with a budget."
        )
    if chunk_size < 1:
        raise ValueError(f"expected chunk_size to be a positive int or None (all at once), got {chunk_size}")
