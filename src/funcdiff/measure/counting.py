"""Costs without noise: what a function computes and holds, counted rather than timed."""

import gc
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._flops import FORMULAS, UNCOUNTED
from funcdiff.measure.costs import Cost, Costs
from funcdiff.measure.recording import recorded


@overload
def count(func: Callable[..., Any], /, *args: Any) -> Cost: ...


@overload
def count(func: Mapping[str, Callable[..., Any]], /, *args: Any) -> Costs: ...


def count(func: Callable[..., Any] | Mapping[str, Callable[..., Any]], /, *args: Any) -> Cost | Costs:
    """Count what a call computes and holds, under any transform, with modules, on any device.

    On tensors of ``device="meta"`` nothing is computed and nothing held, so a call that would take minutes or not fit
    in memory can be counted. There, forward mode through sums and products with constants may show a few operations
    more than on real tensors, torch inferring shapes by them; FLOPs are the same.

    Args:
        func: A function, or a mapping of name to function; called as ``func(*args)``.
        *args: The arguments.

    Returns:
        The cost of the function, or of each.

    Raises:
        ValueError: The function is compiled, and so hides its operations.

    >>> x, weight = torch.ones(100, 5, device="meta"), torch.ones(7, 5, device="meta")
    >>> cost = count(torch.nn.functional.linear, x, weight)
    >>> cost.flops == 2 * 100 * 5 * 7, cost.peak_bytes == 4 * 100 * 7
    (True, True)
    """
    return recorded(Costs(count_each(func, *args))) if isinstance(func, Mapping) else recorded(_count(func, *args))


def count_each(functions: Mapping[str, Callable[..., Any]], *args: Any) -> dict[str, Cost]:
    """Count each of several functions, without recording it."""
    return {name: _count(func, *args) for name, func in functions.items()}


def _count(func: Callable[..., Any], *args: Any) -> Cost:
    if hasattr(func, "_torchdynamo_orig_callable") or hasattr(func, "_orig_mod"):
        raise ValueError("expected a function whose operations can be seen; count it before torch.compile")
    collecting = gc.isenabled()
    gc.disable()  # so that what a reference cycle holds is held at every call alike
    try:
        with _Counter() as counter:
            func(*args)
    finally:
        if collecting:
            gc.enable()
    uncounted = tuple(sorted(counter.uncounted))
    return Cost(counter.flops, counter.operations, counter.bytes_written, counter.peak, uncounted)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its hooks untyped
    """Sees each operation below autograd and vmap, where a batch is one operation on plain tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.flops = self.operations = self.bytes_written = self.alive = self.peak = 0
        self.uncounted: set[str] = set()
        self._on_meta: bool | None = None  # whether the call computes on meta tensors, known from its first operation
        self._sizes: dict[int, int] = {}  # of the storages alive that were made inside
        self._scalar_zeros: set[int] = set()  # those that hold one zero, which forward mode expands to a zero tangent

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = FORMULAS.get(func.overloadpacket)
        if formula is None:
            with self:  # in inference mode composite operations arrive whole
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
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
        if self._on_meta is None and (given or made):
            self._on_meta = (given or made)[0].is_meta
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

    def _release(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)
        self._scalar_zeros.discard(key)


def _tensors(tree: Any) -> list[torch.Tensor]:
    # A zero tensor of forward mode has no memory.
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor) and not leaf._is_zerotensor()]


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _changed(func: Any, args: Any, kwargs: Any) -> list[Any]:
    arguments = func._schema.arguments
    given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
    return [given.get(a.name) for a in arguments if a.alias_info is not None and a.alias_info.is_write]
