"""A function as the straight line of operations that one call of it comes down to, by torch's own tracer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from funcdiff._torch.compiler import eagerly
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.reading import reading
from funcdiff._torch.transforms import undrawn
from funcdiff._torch.versions import RUNNING

aten = torch.ops.aten
COPIES = aten.clone.default, aten._to_copy.default
# Since torch 2.14, the tracer writes a detach down as an alias.
DETACHES = (aten.detach.default, aten.alias.default) if RUNNING >= "2.14" else (aten.detach.default,)
VIEWS_OF_SHAPE = aten.view.default, aten._unsafe_view.default, aten.reshape.default


def traced(flat: Callable[..., Sequence[Tensor]], args: Sequence[Tensor]) -> GraphModule:
    """The operations of `flat(*args)`, a function of tensors, without autograd, transforms and writes into results.

    Tensors that `flat` holds are attributes of the module, by reference.

    Raises:
        RefusedError: What `flat` does may be something else at the next call.
    """
    examples = [x.detach().clone().requires_grad_(x.requires_grad) for x in args]
    try:
        with undrawn(), eagerly(), reading() as read:
            module: GraphModule = make_fx(flat)(*examples)
    except RuntimeError as error:
        if "Sparse CSR tensors do not have strides" in str(error):
            raise RefusedError(COMPRESSED) from error
        if "value out of a tracing tensor" not in str(error) and "data-dependent" not in str(error):
            raise
        raise RefusedError(READS) from error
    if read.seen:
        raise RefusedError(READS)
    held = set(held_tensors(module).values())
    for node in module.graph.nodes:
        refuse_draws(node)
        refuse_writes(node, held)
    if any(mutates(node) for node in module.graph.nodes):
        module = make_fx(functionalize(module, remove="mutations"))(*examples)
        if any(mutates(node) for node in module.graph.nodes if node.target is not aten.empty.memory_format):
            raise RefusedError(WRITES)
    module.graph.eliminate_dead_code()
    return module


def being_traced() -> bool:
    """Inside `traced`, or another use of torch's tracer."""
    return get_proxy_mode() is not None


COMPRESSED = (
    "cannot prepare a function that uses a sparse tensor in compressed rows, which torch's tracer does not know: keep "
    "it in coordinates (matrix.to_sparse()), or call the function itself"
)
READS = (
    "cannot prepare a function that reads the values of tensors (.item(), .tolist(), if, a mask that selects): with "
    "other values it may do something else. Use torch.where in place of a branch, or call the function itself"
)
WRITES = (
    "cannot prepare a function that writes into an argument or a captured tensor (x += 1, out=, a module in training "
    "mode). Call .eval() first, write y = x + 1 in place of x += 1, or call the function itself"
)
DRAWS = (
    "cannot prepare a function that draws random numbers, because each call draws others. Call .eval() on modules "
    "with dropout, or draw outside and pass the numbers as an argument"
)


def held_tensors(module: GraphModule) -> dict[Node, Tensor]:
    """The nodes that stand for tensors held by the traced function."""
    return {node: getattr(module, node.target) for node in module.graph.nodes if node.op == "get_attr"}


def fresh(node: Node) -> bool:
    """Whether the held tensor was made while tracing: a number that the function writes as torch.tensor(2.0)."""
    return all(user.target in (aten.lift_fresh.default, aten.lift_fresh_copy.default) for user in node.users)


def refuse_draws(node: Node) -> None:
    """Raise where the operation draws."""
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise RefusedError(DRAWS)


def mutates(node: Node) -> bool:
    """Whether the operation writes into one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def refuse_writes(node: Node, held: Any) -> None:
    """Raise where the operation writes into what the function was given or holds, or a view of it."""
    if mutates(node):
        written = node.args[0]
        while isinstance(written, Node) and written.op == "call_function" and is_view(written.target):
            written = written.args[0]
        if isinstance(written, Node) and written.op in ("placeholder", "get_attr"):
            raise RefusedError(WRITES)


def is_view(target: Any) -> bool:
    """Whether all results of the operation share memory with its argument."""
    schema = getattr(target, "_schema", None)
    return schema is not None and bool(schema.returns) and all(r.alias_info is not None for r in schema.returns)
