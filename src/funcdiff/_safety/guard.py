"""Functions with what torch 2.13 differentiates twice wrong, without an error, or not at all, put right or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funcdiff._calling.types import Function
from funcdiff._jets.jet import COMPOSITES, by_position, check_grad_mode
from funcdiff._jets.operations import FORMS, TWICE
from funcdiff._torch.compiler import named_after
from funcdiff._torch.constants import DATA
from funcdiff._torch.functions import set_grad_enabled
from funcdiff._torch.messages import refuse_here
from funcdiff._torch.operators import IN_EVALUATION
from funcdiff._torch.transforms import plain_allowed
from funcdiff._torch.trees import Tree, flatten

Recipe = Callable[..., Function]
_OPERATORS = """
    native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit cudnn_batch_norm
    miopen_batch_norm linalg_inv_ex _linalg_solve_ex _linalg_det _linalg_slogdet cholesky_inverse cumprod
    logcumsumexp logaddexp logaddexp2 _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
    _safe_softmax _cdist_forward _euclidean_dist _pdist_forward _weight_norm_interface embedding rrelu_with_noise
    mse_loss soft_margin_loss multi_margin_loss _prelu_kernel select_scatter as_strided prod linalg_lu_solve
    _native_multi_head_attention _transformer_encoder_layer_fwd _nested_tensor_from_mask
    max_unpool2d max_unpool3d sinc nan_to_num std std_mean huber_loss _cudnn_rnn"""
REWRITTEN = frozenset(
    (*_OPERATORS.split(), IN_EVALUATION, "norm with p > 2", "abs of complex numbers", "pow of two tensors")
)  # in whose place a corrected function has others

# Of these plain autograd has no right gradient, or in evaluation mode none.
_WITHOUT_GRADIENT = frozenset(("max_unpool2d", "max_unpool3d", "_cudnn_rnn"))


def with_safe_forms(recipe: Recipe) -> Recipe:
    """`recipe`, of functions corrected."""
    return lambda func, *args, **options: recipe(corrected(func), *args, **options)


def with_safe_forms_where_needed(recipe: Function) -> Function:
    """The same for a product on plain autograd, which has norms right, and faster, if nothing is to go through it."""

    def safe(func: Function, primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> Tree:
        if plain_allowed() and not has_graph((primals, tangents)):
            spared: list[Any] = []
            result = recipe(corrected(func, spared), primals, tangents)
            if not spared or not has_graph(result):  # else func captured what is being trained
                return result
        return recipe(corrected(func, once_more=True), primals, tangents)

    return safe


def has_graph(tree: Tree) -> bool:
    """Whether what is computed with these tensors can be trained through."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in flatten(tree)[0])


def _trained(args: Sequence[Any]) -> bool:
    """Whether a parameter is among the arguments after the first."""
    return any(isinstance(x, Tensor) and x.requires_grad and x.is_leaf for x in args[1:])


def corrected(func: Function, spared: list[Any] | None = None, *, once_more: bool = False) -> Function:
    """`func` with what torch 2.13 differentiates twice wrong put right, or refused.

    Where a list is given, what plain autograd has right remains, and what was met of it is added to the list. What has
    no form, and which plain autograd has right twice, is refused if the result is to be differentiated `once_more`.
    """
    grad_enabled = torch.is_grad_enabled()

    @named_after(func)
    def run(*args: Tree) -> Tree:
        with _Guard(grad_enabled, spared, once_more):
            return func(*args)

    return run


def with_right_gradient(flat: Function, operators: frozenset[str]) -> Function:
    """`flat`, which calls these operators, as it is or with what plain autograd differentiates wrong put right."""
    return corrected(flat) if operators & _WITHOUT_GRADIENT else flat


# The compiler of torch 2.13 does not know a method of a tensor again that it looks up in a dictionary.
_METHODS = [getattr(Tensor, name) for name in dir(Tensor)]
_TRACEABLE = {func: form for func, form in FORMS.items() if not any(func is method for method in _METHODS)}


class _Guard(TorchFunctionMode):
    """Has torch differentiate compositions of simpler operations where it gets an operation wrong, or refuses it."""

    def __init__(self, grad_enabled: bool, spared: list[Any] | None, once_more: bool) -> None:
        super().__init__()
        self.grad_enabled, self.spared, self.once_more = grad_enabled, spared, once_more

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Plain autograd has the refused ones right, and runs custom functions in no_grad().
        inside = not plain_allowed()
        if inside and func is not set_grad_enabled:  # the switch itself computes nothing
            check_grad_mode(self.grad_enabled)
        if self.spared is not None and func in TWICE and not _trained((*args, *kwargs.values())):
            self.spared.append(func)
            return func(*args, **kwargs)
        if not torch.compiler.is_compiling() and func == DATA:
            return args[0].detach()  # a constant for all transforms around
        forms = _TRACEABLE if torch.compiler.is_compiling() else FORMS
        if func in forms and kwargs.get("out") is None:
            kwargs = dict(kwargs)
            return forms[func](func, by_position(func, args, kwargs), kwargs)
        if func in COMPOSITES and not torch.compiler.is_compiling():
            with self:  # it may call one of them
                return COMPOSITES[func](*args, **kwargs)
        wrong = func in _WRONG or (func in _SCATTER and "prod" in (*args[3:], kwargs.get("reduce")))
        if wrong and self.spared is not None:
            self.spared.append(func)
        if wrong and (inside or self.once_more):
            refuse_here(
                f"torch's second derivative of {func.__name__} is wrong, and it raises no error. Use its form in "
                "torch.nn.functional, or write it with simpler operations"
            )
        return func(*args, **kwargs)


def _overloads(names: str) -> frozenset[Any]:
    """The functions, the methods and the operators of these names."""
    forms: set[Any] = set()
    for name in names.split():
        operator = getattr(torch.ops.aten, name)
        forms.update((operator, *(getattr(operator, overload) for overload in operator.overloads())))
        forms.update(getattr(space, name) for space in (torch, torch.Tensor) if hasattr(space, name))
    return frozenset(forms)


_WRONG = _overloads(
    """native_layer_norm native_batch_norm native_group_norm _native_batch_norm_legit _batch_norm_with_update batch_norm
    instance_norm"""
)
_SCATTER = _overloads("scatter_reduce scatter_reduce_")
