"""Every operation of torch handed to a callable: what it is given, what it writes, what it may be taken apart into."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from funcdiff._torch.operators import arguments
from funcdiff._torch.trees import tree_leaves

_OWN = frozenset(("aten", "prims", "prim"))
POINTWISE = torch.Tag.pointwise


class Operation:
    """One call of an operation."""

    def __init__(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.foreign = isinstance(func, HigherOrderOperator) or func.namespace not in _OWN
        self.name: str = func._name if isinstance(func, HigherOrderOperator) else func.overloadpacket.__name__
        self.tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]

    def run(self, given: dict[str, Any] | None = None) -> Any:
        """The result, of other arguments where these are given by name."""
        if given is None:
            return self.func(*self.args, **self.kwargs)
        schema = self.func._schema.arguments
        positional = [given[a.name] for a in schema if not a.kwarg_only]
        return self.func(*positional, **{a.name: given[a.name] for a in schema if a.kwarg_only})

    @property
    def given(self) -> dict[str, Any]:
        """The arguments by name, defaults included."""
        schema = self.func._schema.arguments
        return dict(
            zip((a.name for a in schema), arguments(self.func, self.args, self.kwargs, lambda _: True), strict=True)
        )

    @property
    def written(self) -> list[Tensor]:
        """What is written in place."""
        if self.foreign or not self.func._schema.is_mutable:
            return []
        found = arguments(self.func, self.args, self.kwargs, lambda a: a.is_write)
        return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]

    @property
    def pointwise(self) -> bool:
        """Whether each element of the result is computed from one of each operand."""
        return POINTWISE in getattr(self.func, "tags", ())

    @property
    def parts(self) -> Callable[..., Any] | None:
        """The same result by simpler operations, where torch has such a form."""
        if self.foreign:
            return None
        if torch._C._dispatch_has_kernel_for_dispatch_key(self.func.name(), "CompositeImplicitAutograd"):
            return self.func.decompose  # type: ignore[no-any-return]  # torch leaves it untyped
        if any(a.alias_info for a in (*self.func._schema.arguments, *self.func._schema.returns)):
            return None  # a view must remain one
        if self.func.namespace == "prims":
            form: Callable[..., Any] | None = getattr(self.func.overloadpacket, "impl_aten", None)
            return form
        return decomposition_table.get(self.func)


class Intercept(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hooks untyped
    """Has `see` run each operation beneath autograd and vmap, and returns what it returns."""

    supports_higher_order_operators = True  # cond and its like arrive whole

    def __init__(self, see: Callable[[Operation], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.see(Operation(func, args, kwargs or {}))


def storage_of(x: Tensor) -> int:
    """What tells the memory of a tensor from others, as long as it is there; of a sparse one that of its entries."""
    part = x if x.layout is torch.strided else x._values()
    return int(part.untyped_storage()._cdata)


def when_freed(x: Tensor, call: Callable[[int], Any]) -> None:
    """Have `call` told when the memory of a tensor is given back."""
    weakref.finalize(x.untyped_storage(), call, storage_of(x)).atexit = False
