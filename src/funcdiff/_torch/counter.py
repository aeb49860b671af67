"""What a call computes and holds, seen operation by operation below autograd and vmap."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._torch.collectives import bytes_sent
from funcdiff._torch.flops import FORMULAS, UNCOUNTED
from funcdiff._torch.tensors import with_number

T = TypeVar("T")


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its hooks untyped
    """Counts while it is entered; what a reference cycle holds is held at every call alike.

    Attributes:
        flops: Of matrix products and convolutions.
        operations: Those that write.
        bytes_written: By all of them.
        peak: The most bytes alive at once of what was made inside.
        uncounted: The operations that multiply matrices and have no formula.
        collectives: Calls of torch.distributed that send.
        bytes_sent: By this process, over a ring.
        fixed: The bytes alive before the first chunk, where chunks are counted.
        reached: The most bytes that were really there at once: less than `peak` where chunks that are not run leave
            some behind.
        with_graph: Whether the result of a counted call carries a graph, which holds what the call computed.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.flops = self.operations = self.bytes_written = self.alive = self.peak = self.fixed = 0
        self.reached = self._imagined = 0  # of the bytes alive, those that chunks would have left that were not run
        self.collectives = self.bytes_sent = 0
        self.uncounted: set[str] = set()
        self._on_meta: bool | None = None  # whether it computes on meta tensors, as its first argument says
        self._sizes: dict[int, int] = {}  # of the storages alive that were made inside
        self._collecting: list[bool] = []
        self._scalar_zeros: set[int] = set()  # those that hold one zero, which forward mode expands to a zero tangent
        self.with_graph = False

    def __enter__(self) -> Counter:
        self._collecting.append(gc.isenabled())  # entered anew for composite operations
        gc.disable()
        super().__enter__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if self._collecting.pop():
            gc.enable()

    def as_if_repeated(self, run: Callable[[], T], times: int) -> list[T]:
        """The results of `times` runs that are all alike, by one run: its counts are taken so many times.

        What a run leaves behind is held as long as its result, or to the end where that carries a graph.
        """
        before, peak = (self.flops, self.operations, self.bytes_written, self.alive), self.peak
        self.fixed = self.fixed or self.alive
        self.peak = self.alive
        result = run()
        after = self.flops, self.operations, self.bytes_written, self.alive
        flops, operations, written, left = ((b - a) * (times - 1) for a, b in zip(before, after, strict=True))
        self.flops += flops
        self.operations += operations
        self.bytes_written += written
        self.alive += left
        self._imagined += left
        self.peak = max(peak, self.peak + left)
        tensors = _tensors(result)
        if tensors and not any(tensor.requires_grad for tensor in tensors):
            weakref.finalize(tensors[0], self._let_go, left).atexit = False
        return [result] * times

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (sent := bytes_sent(func, args)) is not None:
            self.collectives += sent > 0
            self.bytes_sent += round(sent)
            return func(*args, **kwargs)
        formula = FORMULAS.get(func.overloadpacket)
        if formula is None:
            with self:  # in inference mode composite operations arrive whole
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = with_number(func, args, kwargs)
        name = func.overloadpacket.__name__
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        elif UNCOUNTED.match(name):
            self.uncounted.add(name)
        given, made = _tensors((args, kwargs)), _tensors(result)
        if not self._infers_shape(name, given, made):
            self._see_memory(name, given, made, _tensors(_changed(func, args, kwargs)))
        return result

    def _infers_shape(self, name: str, given: Sequence[torch.Tensor], made: Sequence[torch.Tensor]) -> bool:
        """Whether torch only asks for a shape: arithmetic with a zero tangent is first done on the meta device."""
        if self._on_meta is None:
            # Before torch 2.13, forward mode begins with a few numbers of its own, which are on the CPU.
            outside = [] if name == "lift_fresh" else [x for x in given if _key(x) not in self._sizes]
            self._on_meta = outside[0].is_meta if outside else None
        if self._on_meta is None:
            return False
        if not self._on_meta:
            return any(tensor.is_meta for tensor in made)
        return name in {"add", "sub", "mul", "div"} and any(
            tensor.ndim > 0 and _key(tensor) in self._scalar_zeros for tensor in given
        )

    def _see_memory(
        self, name: str, given: Iterable[torch.Tensor], made: Iterable[torch.Tensor], changed: Sequence[torch.Tensor]
    ) -> None:
        held = set() if name == "lift_fresh" else set(map(_key, given))
        made = [tensor for tensor in made if _key(tensor) not in held]
        for tensor in made:
            self._hold(tensor)
        for tensor in changed:  # it may have been resized
            if _key(tensor) in self._sizes:
                self._hold(tensor)
        if name == "zeros" and made[0].ndim == 0:
            self._scalar_zeros.add(_key(made[0]))
        elif (made or changed) and not name.startswith(("empty", "new_empty")):
            self.operations += 1
            self.bytes_written += sum(tensor.numel() * tensor.element_size() for tensor in [*made, *changed])

    def _hold(self, tensor: torch.Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key not in self._sizes:
            weakref.finalize(storage, self._release, key).atexit = False
        self.alive += storage.nbytes() - self._sizes.get(key, 0)
        self._sizes[key] = storage.nbytes()
        self.peak = max(self.peak, self.alive)
        self.reached = max(self.reached, self.alive - self._imagined)

    def _let_go(self, size: int) -> None:
        self.alive -= size
        self._imagined -= size

    def _release(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)
        self._scalar_zeros.discard(key)


def _tensors(tree: Any) -> list[torch.Tensor]:
    # A zero tensor of forward mode has no memory, and a sparse tensor that of its parts, which are seen alone.
    tensors = (leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor))
    return [x for x in tensors if x.layout is torch.strided and not x._is_zerotensor()]


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _changed(func: Any, args: Any, kwargs: Any) -> list[Any]:
    arguments = func._schema.arguments
    given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
    return [given.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write]
