"""Which entries of a matrix may differ from zero."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from funcdiff._sparse.colouring import Groups, by_rows, one_sided, star
from funcdiff._sparse.sets import Ints, Sets, distinct

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out torch's warning that compressed rows are in beta: the user did not choose them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        # torch 2.11 says so although it is told whether to check.
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled", UserWarning)
        yield


with _quietly():  # torch says both once in a process
    torch.sparse_csr_tensor([0], [], [], (0, 0), check_invariants=False)
_WIDTH, _HEIGHT = 40, 20  # characters of the picture in a terminal, 2 x 4 dots each


class Pattern:
    """The places of a sparse matrix's entries, in compressed rows.

    It shows itself as a picture of the matrix, in a terminal and in a notebook.

    Attributes:
        shape: The numbers of rows and columns: of outputs and inputs.
        starts: Where each row begins in `columns`, and the end.
        columns: The column of each entry, row by row in ascending order.
        symmetric: Whether the matrix is a Hessian, so that an entry may be read in its own row or its column's.
        note: Why it may be another at other arguments, or nothing.
    """

    def __init__(self, shape: tuple[int, int], starts: Ints, columns: Ints, *, symmetric: bool = False) -> None:
        self.shape, self.starts, self.columns, self.symmetric = shape, starts, columns, symmetric
        self.note = ""

    @classmethod
    def of_sets(cls, parts: Sequence[Sets], n: int) -> Pattern:
        """The pattern whose rows are these sets of columns."""
        rows = [part.table.rows(part.ids) for part in parts]
        sizes = np.concatenate([np.zeros(1, np.int64), *(sizes for sizes, _ in rows)])
        columns = np.concatenate([np.empty(0, np.int64), *(members for _, members in rows)])
        return cls((len(sizes) - 1, n), np.cumsum(sizes), columns)

    @classmethod
    def of_entries(cls, rows: ArrayLike, columns: ArrayLike, shape: tuple[int, int]) -> Pattern:
        """The pattern with entries at these places, each counted once."""
        keys = distinct(np.asarray(rows, np.int64) * max(shape[1], 1) + np.asarray(columns, np.int64))
        at, columns = np.divmod(keys, max(shape[1], 1))
        starts = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=shape[0]))]).astype(np.int64)
        return cls(shape, starts, columns)

    @classmethod
    def of_matrix(cls, matrix: Any) -> Pattern:
        """The places of the entries that a matrix stores: a SciPy matrix, or a tensor; of a dense one the nonzeros.

        Raises:
            TypeError: It is none of these.
            ValueError: It has other than two dimensions.
        """
        if isinstance(matrix, Pattern):
            return matrix
        if not isinstance(matrix, Tensor) and not hasattr(matrix, "tocoo"):
            raise TypeError(
                f"expected pattern to be a Pattern, a tensor or a SciPy matrix, got {type(matrix).__name__}"
            )
        if len(matrix.shape) != 2:
            raise ValueError(f"expected pattern to be a matrix, got shape {tuple(matrix.shape)}")
        if isinstance(matrix, Tensor):
            rows, columns = matrix.detach().to_sparse().coalesce().indices().cpu().numpy()
        else:
            entries = matrix.tocoo()
            rows, columns = entries.row, entries.col
        return cls.of_entries(rows, columns, (int(matrix.shape[0]), int(matrix.shape[1])))

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return len(self.columns)

    @cached_property
    def rows(self) -> Ints:
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.starts))

    @cached_property
    def ways(self) -> list[Groups]:
        """The ways to read all entries from the fewest passes that were found."""
        return [star(self)] if self.symmetric else one_sided(self)

    @cached_property
    def by_rows(self) -> Groups:
        """The way by reverse passes alone, or by products with a symmetric matrix."""
        return star(self) if self.symmetric else by_rows(self)

    @property
    def passes(self) -> int:
        """How many passes give all entries."""
        return self.ways[0].passes

    @cached_property
    def transposed(self) -> Pattern:
        """The pattern with rows and columns exchanged."""
        order = np.argsort(self.columns, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.columns, minlength=self.shape[1]))]).astype(np.int64)
        return Pattern((self.shape[1], self.shape[0]), starts, self.rows[order])

    def only_mutual(self) -> Pattern:
        """The entries whose mirror image is one as well: those that a symmetric matrix can have."""
        width = max(self.shape[1], 1)
        keys, mirrored = self.rows * width + self.columns, self.transposed.rows * width + self.transposed.columns
        both = keys[np.isin(keys, mirrored, assume_unique=True)] if not np.array_equal(keys, mirrored) else keys
        found = Pattern.of_entries(both // width, both % width, self.shape)
        found.symmetric = True
        return found

    def to_csr(self, values: Tensor) -> Tensor:
        """The sparse matrix that has these values at the places of the pattern."""
        starts, columns = self._indices(values.device)
        with _quietly() if torch.is_warn_always_enabled() else nullcontext():
            return torch.sparse_csr_tensor(
                starts, columns, values, self.shape, device=values.device, check_invariants=False
            )

    def to_dense(self, values: Tensor) -> Tensor:
        """The dense matrix with these values, as a tensor that every transform of torch.func can carry."""
        place = torch.from_numpy(self.rows * self.shape[1] + self.columns).to(values.device)
        zeros = values.new_zeros(self.shape[0] * self.shape[1])
        return zeros.index_put((place,), values).reshape(self.shape)

    def scipy(self) -> Any:
        """The pattern as a SciPy matrix of ones, as `solve_ivp` and `least_squares` take it for `jac_sparsity`."""
        # Here, as recipes work without SciPy, which has no types.
        from scipy.sparse import csr_array  # type: ignore[import-untyped]  # scipy ships no types

        return csr_array((np.ones(self.nnz), self.columns, self.starts), shape=self.shape)

    def __repr__(self) -> str:
        m, n = self.shape
        head = f"{m} x {n}, {self.nnz} entries, {self.passes} passes"
        return "\n".join([f"{head} ({self.note})" if self.note else head, *self._picture()])

    def _repr_html_(self) -> str:
        head, *picture = repr(self).split("\n")
        return f"<p>{head}</p><pre style='line-height: 1'>{chr(10).join(picture)}</pre>"

    def _picture(self) -> list[str]:
        """The matrix in dots of braille, scaled to the size of a terminal."""
        m, n = self.shape
        if not self.nnz:
            return []
        dots = min(m, 4 * _HEIGHT), min(n, 2 * _WIDTH)
        down, across = self.rows * dots[0] // m, self.columns * dots[1] // n
        bits = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
        cells = np.zeros((-(-dots[0] // 4), -(-dots[1] // 2)), np.int64)
        np.bitwise_or.at(cells, (down // 4, across // 2), bits[down % 4, across % 2])
        return ["".join(chr(0x2800 + cell) for cell in row) for row in cells]

    def _indices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Starts and columns as SciPy's solvers want them, of 32 bits where these do."""
        kept: dict[torch.device, tuple[Tensor, Tensor]] = self.__dict__.setdefault("_kept", {})
        if device not in kept:
            kind = np.int32 if max(self.nnz, *self.shape) < 2**31 else np.int64
            starts, columns = (torch.from_numpy(x.astype(kind)) for x in (self.starts, self.columns))
            kept[device] = starts.to(device), columns.to(device)
        return kept[device]
