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
from funcdiff._torch.transforms import transforms_active
from funcdiff._torch.trees import Tree, flatten


def prepare(function: Callable[..., Tree], *example_args: Tree, again: bool = False) -> Prepared:
    """Record the tensor operations of a derivative, and return a function that runs only these.

    A call of a small derivative is mostly machinery: `vmap`, autograd, pytrees and checks. The recorded operations have
    none of it, so they are much faster, and `.code` shows them. The recording is simplified, and compared with
    `function` at the example arguments and at a point beside them. An operation whose result the derivative does not
    use is left out, and so is the error that it would raise for its arguments.

    Cost: preparing calls `function` a few times. A call of the result costs its operations, and a check of them,
    some microseconds.

    Args:
        function: A function of tensors or pytrees that returns tensors or pytrees, such as `jacobian(f)`,
            `vmap(hessian(f))`, `batch_hessian(f)`, `jacobian_sparse(f)`, or a lambda around `hvp`.
        *example_args: Arguments as they will come. Their structure, shapes, dtypes and devices are what is prepared.
        again: Prepare anew when arguments of another kind come, and keep each prepared version. By default they
            are refused.

    Returns:
        A function of the same arguments with the same results; `.code` shows its operations as Python. It refers to the
        tensors that `function` holds, so a training step that writes into them is seen. Inside `vmap`, `grad` or `jvp`
        it calls `function` itself.

    Raises:
        RuntimeError: When preparing: `function` reads the values of tensors, draws random numbers, or writes into
            tensors that it holds, so its next call may do something else. When calling: the arguments are of another
            kind, or `function` holds another tensor, module or number than before.

    Example:
        The Jacobian of the squares is the diagonal matrix of 2 x.

        >>> import torch
        >>> from funcdiff import jacobian, prepare
        >>> squares = prepare(jacobian(lambda x: x**2), torch.ones(2))
        >>> squares(torch.tensor([1.0, 3.0]))
        tensor([[2., 0.],
                [0., 6.]])
    """
    return Prepared(function, example_args, again)


class Prepared:
    """A function as a straight line of operations: what `prepare` returns.

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
        """The line that was made last as Python, with its arguments first and then what it holds."""
        return self._line.written.code

    @property
    def held(self) -> Mapping[str, Tensor]:
        """The tensors that the line keeps, by their names in its code."""
        return MappingProxyType(self._line.written.held)

    @property
    def operations(self) -> tuple[int, int]:
        """The number of operations that were traced, and of those that are left."""
        return self._line.traced, self._line.written.steps

    def explained(self, primals: Sequence[Tree]) -> PreparedExplanation:
        """What `explain` shows of it; its arguments are those that it was prepared for."""
        name = str(getattr(self, "__name__", "function"))
        held = sum(tensor.nbytes for tensor in self.held.values())
        return PreparedExplanation(name, self._line.written.operations, self._line.traced, held)

    def __call__(self, *args: Tree) -> Tree:
        """The results of the function that was prepared."""
        if transforms_active():
            return self.function(*args)
        leaves, spec = flatten(args)
        line = self._line
        if torch.compiler.is_compiling():  # a graph of the compiler's has guards of its own
            return line(leaves)
        if line.spec != spec or line.kind != kind_of(leaves):
            line = self._other(args)
        line.refuse_stale()
        return line(leaves)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the line that was made last to a file, with the tensors it holds, in the format of ``torch.export``.

        Args:
            path: The file.

        Raises:
            RuntimeError: The result is sparse, which ``torch.export`` does not support.
        """
        line = self._line
        examples = tuple(torch.ones(k[0], dtype=k[1], device=k[2]) if isinstance(k, tuple) else k for k in line.kind)
        if any(result.layout is not torch.strided for result in flatten(line(examples))[0]):
            raise RefusedError("torch.export has no sparse tensors: prepare with layout=None, which saves the entries")
        torch.export.save(torch.export.export(_Exported(line), examples), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prepared:
        """Read what `save` wrote; it holds the tensors as they were then.

        Args:
            path: The file.

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
