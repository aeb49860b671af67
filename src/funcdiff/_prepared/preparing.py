"""`prepare`: a derivative as a straight line of operations, made once and called often."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from funcdiff._automatic.explaining import PreparedExplanation
from funcdiff._prepared.line import Line, kind_of, made, told
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.tensors import all_finite
from funcdiff._torch.transforms import transforms_active
from funcdiff._torch.trees import Tree, flatten


def prepare(function: Callable[..., Tree], *example_args: Tree, again: bool = False) -> Prepared:
    """Record the tensor operations of a derivative once, and return a function that only runs these operations.

    Use it to speed up a small derivative that you call thousands of times. Most of the time of a call is spent
    in Python: in vmap, autograd and checks. None of this runs in the prepared function. It takes the same arguments, of
    the same shapes, and returns the same result.

    Do not use it if the shapes or the branches of the function depend on values. It saves little if most of the time is
    arithmetic.

    Example:
        The Jacobian of the squares is the diagonal matrix of 2 x.

        >>> import torch
        >>> from funcdiff import jacobian, prepare
        >>> squares = prepare(jacobian(lambda x: x**2), torch.ones(2))
        >>> squares(torch.tensor([1.0, 3.0]))
        tensor([[2., 0.],
                [0., 6.]])

    Args:
        function: The function to prepare, such as `jacobian(f)`, `vmap(hessian(f))`, `batch_hessian(f)`,
            `jacobian_sparse(f)`, or a lambda that calls `hvp`. Its arguments and results are tensors or pytrees of
            tensors.
        *example_args: Arguments of the same structure, shapes, dtypes and devices as those to come. Their values do not
            matter. Autocast and the mode of gradients must be as in the calls to come.
        again: Whether to prepare anew for arguments of other shapes, dtypes, devices or structure, and to keep each
            version. By default, such arguments are refused.

    Returns:
        A function with the same arguments and results. Its `.code` shows the recorded operations as Python. It uses the
        tensors that `function` captured, so it sees a training step that changes them in place. Inside vmap, grad or
        jvp it calls `function` itself.

    Raises:
        RuntimeError: `prepare` raises it if `function` reads values of tensors, draws random numbers, or writes into
            captured tensors, because the next call may then need other operations. The prepared function raises it if
            its arguments are of another kind, or if `function` now uses another tensor, module or number.

    Method:
        The recorded operations are simplified, and the result is compared with `function` at the example arguments and
        at a point beside them. If a later result contains NaN or infinity, `function` itself is called, which may use
        another method there. This is not done on a GPU. An operation whose result is not used is left out, and with it
        any error that it would raise.

    Cost:
        Preparing takes as long as about a hundred calls or more. The first time in a process it takes some seconds,
        because torch then loads its compiler, which contains the tracer. A call of the prepared function takes the time
        of its operations and a few microseconds for a check.

    See Also:
        `explain` says after how many calls preparing saves time.
    """
    return Prepared(function, example_args, again)


class Prepared:
    """A function that runs recorded tensor operations: what `prepare` returns.

    Attributes:
        function: The function that was prepared.
    """

    def __init__(self, function: Callable[..., Tree], example_args: Sequence[Tree], again: bool) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self._again = again
        self._lock = threading.Lock()
        self._lines: dict[Hashable, Line] = {}
        self._line = self._prepared(example_args)

    @property
    def code(self) -> str:
        """The operations that were recorded last, as Python code. Captured tensors are its last arguments."""
        return self._line.written.code

    @property
    def held(self) -> Mapping[str, Tensor]:
        """The captured tensors, by their names in `code`."""
        return MappingProxyType(self._line.written.held)

    @property
    def operations(self) -> tuple[int, int]:
        """The number of operations that were recorded, and the number left after simplifying."""
        return self._line.traced, self._line.written.steps

    def explained(self, primals: Sequence[Tree]) -> PreparedExplanation:
        """What `explain` shows of the prepared function."""
        name = str(getattr(self, "__name__", "function"))
        held = sum(tensor.nbytes for tensor in self.held.values())
        return PreparedExplanation(name, self._line.written.operations, self._line.traced, held)

    def __call__(self, *args: Tree) -> Tree:
        """Run the recorded operations."""
        if transforms_active():
            return self.function(*args)
        leaves, spec = flatten(args)
        line = self._line
        if torch.compiler.is_compiling():  # a graph of the compiler's has guards of its own
            return line(leaves)
        if line.spec != spec or line.kind != kind_of(leaves):
            line = self._other(args)
        line.refuse_stale()
        numbers = line.numbers(leaves)
        if line.watched and not all_finite(numbers):
            return self.function(*args)
        return line.finished(numbers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the operations that were recorded last, and the captured tensors, to a file of ``torch.export``.

        Args:
            path: The path of the file.

        Raises:
            RuntimeError: The result is a sparse tensor, which ``torch.export`` does not support.
        """
        line = self._line
        examples = tuple(torch.ones(k[0], dtype=k[1], device=k[2]) if isinstance(k, tuple) else k for k in line.kind)
        if any(result.layout is not torch.strided for result in flatten(line(examples))[0]):
            raise RefusedError("torch.export has no sparse tensors: prepare with layout=None, which saves the entries")
        torch.export.save(torch.export.export(_Exported(line), examples), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prepared:
        """Load a prepared function that `save` wrote. Its captured tensors have the values they had then.

        Args:
            path: The path of the file.

        Returns:
            The prepared function.
        """
        program = torch.export.load(path)
        args, _ = program.example_inputs
        return cls(program.module(check_guards=False), args, again=False)

    def _other(self, args: Sequence[Tree]) -> Line:
        if self._again:
            return self._prepared(args)
        raise RefusedError(
            f"expected arguments as when it was prepared, {told(self._line.kind)}, got "
            f"{told(kind_of(flatten(args)[0]))}, or another structure. Prepare it for these arguments, or pass "
            "again=True to prepare it for each kind of arguments that comes"
        )

    def _prepared(self, args: Sequence[Tree]) -> Line:
        leaves, spec = flatten(tuple(args))
        key = repr(kind_of(leaves)), repr(spec)
        with self._lock:
            if key not in self._lines:
                self._lines[key] = made(self.function, leaves, spec)
            self._line = self._lines[key]
            return self._line

    def __repr__(self) -> str:
        before, after = self.operations
        return f"<prepared {getattr(self, '__name__', 'function')}: {after} operations, {before} before simplifying>"


class _Exported(nn.Module):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line = line

    def forward(self, *args: Tree) -> Tree:
        return self.line(flatten(args)[0])
