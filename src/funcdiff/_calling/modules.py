"""Networks as functions of their parameters, and trees of tensors as one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from funcdiff._calling.arguments import check_leaves
from funcdiff._calling.types import Function
from funcdiff._torch.layers import BatchNorm, Dropout, for_one_call
from funcdiff._torch.messages import DDP, FSDP, LAZY
from funcdiff._torch.processes import without_hooks, wrapper_of
from funcdiff._torch.trees import Tree, flatten, unflatten

Parameters = dict[str, Tensor]


def module_function(module: nn.Module, *, training: bool = False) -> tuple[Function, Parameters]:
    """Turn a network into a function `func(parameters, *inputs)` and a dictionary of its parameters.

    You need this to differentiate with respect to parameters. A derivative is with respect to an argument of a
    function, but a module stores its parameters inside. ``func(parameters, x)`` returns what ``module(x)`` returns,
    with the parameters that you pass. The module itself does not change.

    Example:
        For a linear layer, `func` computes :math:`w x + b`. Its Jacobian with respect to :math:`w` is :math:`x`, and
        with respect to :math:`b` it is 1. The result has one block for each parameter, of the shape of the output, then
        the shape of the parameter.

        >>> import torch
        >>> from funcdiff import jacobian, module_function
        >>> func, parameters = module_function(torch.nn.Linear(2, 1))
        >>> x = torch.tensor([3.0, 4.0])
        >>> jacobian(func)(parameters, x)
        {'weight': tensor([[[3., 4.]]]), 'bias': tensor([[1.]])}

        The gradient of a loss is a dictionary too. With :math:`w = (1, 1)`, :math:`b = 0` and the target 5, the error
        is 2, and the gradient is twice the error times :math:`x` and 1.

        >>> def loss(parameters, x, target):
        ...     return (func(parameters, x) - target).square().sum()
        >>> point = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
        >>> torch.func.grad(loss)(point, x, 5.0)
        {'weight': tensor([[12., 16.]]), 'bias': tensor([4.])}

    Args:
        module: The network. At each call, `func` uses its buffers, such as the averages of batch norm, and its mode,
            `.eval()` or `.train()`.
        training: Whether to accept a network in training mode. Dropout then draws random numbers, batch norm mixes the
            rows of the batch, and its averages are updated on copies, not in the module.

    Returns:
        `func`, and the dictionary from names to tensors. It contains all parameters, also those that do not require a
        gradient. A parameter that two layers share appears once. The tensors are detached: they share the memory of
        the module's parameters, and autograd does not record them.

    Raises:
        ValueError: A layer in training mode would make the function random or mix the rows of a batch. Call
            ``module.eval()`` first, or pass ``training=True``. Or a lazy layer has not run yet, or the network is
            wrapped in `DistributedDataParallel` (pass its `.module`) or in `FullyShardedDataParallel` (use
            `fully_shard`).
        KeyError: `func` raises it if a parameter is missing, or if the module does not have it.

    Cost:
        No parameter is copied. A call of `func` needs the same operations as a call of the module.

    Note:
        A network under `fully_shard` (FSDP2) has sharded parameters (DTensors). Pass them to `func` together with
        inputs that are DTensors, or to `funcdiff.distributed.hvp_operator`, which gathers them. `func` calls such a
        network without its hooks.

    See Also:
        `ravel` joins the parameters in one vector, so that a Jacobian or a Hessian is one matrix.
    """
    if any(is_lazy(parameter) for parameter in module.parameters()):
        raise ValueError(LAZY)
    wrappers = {wrapper_of(part) for part in module.modules()}
    for name, remedy in (("DDP", DDP), ("FSDP", FSDP)):
        if name in wrappers:
            raise ValueError(remedy)
    if not training:
        refuse_training(module)
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    called = without_hooks(module) if "FSDP2" in wrappers else module
    names = tuple(parameters)  # not a view of keys, which a plan could not be kept for

    def func(parameters: Parameters, *inputs: Tree) -> Tree:
        check_names(parameters, names)
        buffers = {name: for_one_call(buffer) for name, buffer in called.named_buffers()} if training else {}
        return functional_call(called, {**buffers, **parameters}, inputs)

    return func, dict(parameters)


def refuse_training(module: nn.Module) -> None:
    """Refuse layers whose training mode makes another function: random, or of the whole batch."""
    for name, layer in module.named_modules():
        dropout = layer.p if isinstance(layer, Dropout) else getattr(layer, "dropout", 0.0)
        random = isinstance(layer, nn.RReLU) or (isinstance(dropout, float) and dropout > 0)
        if layer.training and (random or isinstance(layer, BatchNorm)):
            raise ValueError(
                f"expected a module in evaluation mode, got {type(layer).__name__} "
                f"{name!r} in training mode. Call module.eval(), or pass training=True if this mode is meant."
            )


def check_names(parameters: Parameters, names: Iterable[str]) -> None:
    """torch.func.functional_call ignores a misspelt name, and takes the module's own value for a missing one."""
    unknown, missing = sorted(parameters.keys() - set(names)), sorted(set(names) - parameters.keys())
    if unknown or missing:
        raise KeyError(
            f"expected the parameters {sorted(names)}, got unknown {unknown} and missing {missing}. "
            "Start from the dictionary that module_function returned: {**parameters, name: value}."
        )


def ravel(tree: Tree) -> tuple[Tensor, Callable[[Tensor], Tree]]:
    """Flatten a pytree of tensors to one vector, and get the function that undoes it.

    With the parameters of a network as one vector, a Jacobian is one (m, n) matrix, and a Hessian one (n, n) matrix.
    Both directions are differentiable and can be used inside vmap.

    Example:
        >>> import torch
        >>> from funcdiff import ravel
        >>> vector, unravel = ravel({"weight": torch.eye(2), "bias": torch.ones(2)})
        >>> vector
        tensor([1., 0., 0., 1., 1., 1.])
        >>> unravel(2 * vector)["bias"]
        tensor([2., 2.])

        The Jacobian with respect to all parameters, as one matrix:

        >>> from funcdiff import jacobian, module_function
        >>> func, parameters = module_function(torch.nn.Linear(2, 1))
        >>> vector, unravel = ravel(parameters)
        >>> jacobian(lambda v: func(unravel(v), torch.tensor([3.0, 4.0])))(vector)
        tensor([[3., 4., 1.]])

    Args:
        tree: Tensors of one dtype and device, in dicts, lists and tuples.

    Returns:
        The vector, of shape (n,), and `unravel`, which takes a vector of shape (n,) and returns a pytree like `tree`.
        The vector has the order of the pytree, and each tensor is flattened row by row.

    Raises:
        TypeError: A tensor is not dense with real floating-point numbers, or the dtypes differ.
        ValueError: The devices differ. `unravel` raises it if the vector has another shape.
    """
    leaves, spec = flatten(tree)
    check_leaves(leaves, "raveled tree")
    dtypes = {leaf.dtype for leaf in leaves}
    if len(dtypes) > 1:
        raise TypeError(f"expected tensors of one dtype, got {sorted(map(str, dtypes))}. Convert them: x.double().")
    shapes = [leaf.shape for leaf in leaves]
    sizes = [leaf.numel() for leaf in leaves]

    def unravel(vector: Tensor) -> Tree:
        if vector.shape != (sum(sizes),):
            raise ValueError(f"expected a vector of shape ({sum(sizes)},), got {tuple(vector.shape)}")
        parts = [part.view(shape) for part, shape in zip(torch.split(vector, sizes), shapes, strict=True)]
        return unflatten(parts, spec)

    return torch.cat([leaf.reshape(-1) for leaf in leaves]), unravel
