"""A function as the straight line of operations that one call of it comes down to, by torch's own tracer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from funcdiff._torch.compiler import eagerly, inlined
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.reading import reading
from funcdiff._torch.tape import draws
from funcdiff._torch.transforms import undrawn
from funcdiff._torch.versions import RUNNING

aten = torch.ops.aten
CONVERTED = aten._to_copy.default
COPIES = aten.clone.default, CONVERTED
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
        with undrawn(), eagerly(), inlined(), noted_by_one_mode(), reading() as read:
            module: GraphModule = make_fx(flat)(*examples)
    except RuntimeError as error:
        if "Sparse CSR tensors do not have strides" in str(error):
            raise RefusedError(COMPRESSED) from error
        if not any(sign in str(error) for sign in _READ):
            raise
        raise RefusedError(READS) from error
    if read.seen:
        raise RefusedError(READS)
    for node in module.graph.nodes:
        refuse_draws(node)
        refuse_writes(node)
        _refuse_memory(node)
    leave_out_dead_code(module)
    if any(mutates(node) for node in module.graph.nodes):
        module = without_writes(module, examples)
        if any(mutates(node) for node in module.graph.nodes if node.target is not aten.empty.memory_format):
            raise RefusedError(WRITES)
        leave_out_dead_code(module)
    return module


def leave_out_dead_code(module: GraphModule) -> None:
    """Leave out what no result needs, which might not even run again: products of zeros of another dtype."""
    module.graph.eliminate_dead_code(lambda node: node.is_impure() or mutates(node) or checks(node.target))
    module.recompile()


def without_writes(module: GraphModule, examples: Sequence[Tensor]) -> GraphModule:
    """The operations with a new tensor in place of each write into a result."""
    # As arguments, as functionalize refuses a write into what depends on no argument.
    held = {str(node.target): tensor for node, tensor in held_tensors(module).items() if not fresh(node)}

    def run(*tensors: Tensor) -> Any:
        given = dict(zip(held, tensors[len(examples) :], strict=True))
        return _Given(module, given).run(*tensors[: len(examples)])

    with noted_by_one_mode(), torch.no_grad():  # the operations of any graph are recorded already
        result: GraphModule = make_fx(functionalize(run, remove="mutations"))(*examples, *held.values())
    placeholders = [node for node in result.graph.nodes if node.op == "placeholder"]
    for node, (name, tensor) in zip(placeholders[len(examples) :], held.items(), strict=True):
        result.register_buffer(f"held_{name}", tensor)
        with result.graph.inserting_after(placeholders[-1]):
            node.replace_all_uses_with(result.graph.get_attr(f"held_{name}"))
        result.graph.erase_node(node)
    return result


class _Given(Interpreter):
    """Runs a module with others in the place of tensors that it holds."""

    def __init__(self, module: GraphModule, given: Mapping[str, Tensor]) -> None:
        super().__init__(module)
        self.given = given

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.given[target] if target in self.given else super().get_attr(target, args, kwargs)


def noted_by_one_mode() -> AbstractContextManager[Any]:
    """Have the tracer note all results by one fake mode: it makes one for each otherwise, for half of its time."""
    return tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True)))


def being_traced() -> bool:
    """Inside `traced`, or another use of torch's tracer."""
    return get_proxy_mode() is not None


# What torch says where a value is read, the last of .numpy().
_READ = "value out of a tracing tensor", "data-dependent", "data pointer of Tensor that doesn't have storage"
COMPRESSED = (
    "cannot prepare a function that uses a sparse tensor in compressed rows, which torch's tracer does not know: keep "
    "it in coordinates (matrix.to_sparse()), or call the function itself"
)
READS = (
    "cannot prepare a function that reads the values of tensors (.item(), .numpy(), if, a mask that selects): with "
    "other values it may do something else. Use torch.where in place of a branch, or call the function itself"
)
WRITES = (
    "cannot prepare a function that writes into an argument or a captured tensor (x += 1, out=, a module in training "
    "mode). Call .eval() first, write y = x + 1 in place of x += 1, or call the function itself"
)
MEMORY = (
    "cannot prepare a function that calls as_strided on an argument: it reads the memory of the argument, and its "
    "entries may lie in another order in the next call. Use unfold, or select entries by their index"
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
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and draws(
        node.target, node.args, node.kwargs
    ):
        raise RefusedError(DRAWS)


def checks(target: Any) -> bool:
    """Whether the operation returns nothing, and so is there to raise: of a matrix that has no inverse."""
    schema = getattr(target, "_schema", None)
    return schema is not None and not schema.returns and not schema.is_mutable


def mutates(node: Node) -> bool:
    """Whether the operation writes into one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def refuse_writes(node: Node) -> None:
    """Raise where the operation writes into what the function was given or holds, or a view of it."""
    if mutates(node) and _source(node.args[0]) in ("placeholder", "get_attr"):
        raise RefusedError(WRITES)


def _refuse_memory(node: Node) -> None:
    """Raise where the operation reads the memory of an argument, whose entries may lie elsewhere in the next call."""
    if node.target is aten.as_strided.default and _source(node.args[0]) == "placeholder":
        raise RefusedError(MEMORY)


def _source(x: Any) -> str:
    """The kind of node that the tensor is, or is a view of; nothing of a list."""
    while isinstance(x, Node) and x.op == "call_function" and is_view(x.target):
        x = x.args[0]
    return x.op if isinstance(x, Node) else ""


def is_view(target: Any) -> bool:
    """Whether all results of the operation share memory with its argument."""
    schema = getattr(target, "_schema", None)
    return schema is not None and bool(schema.returns) and all(r.alias_info is not None for r in schema.returns)
