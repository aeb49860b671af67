"""Network layers written as compositions of simpler operations.

Normalisations are here because torch 2.13's nested forward mode is silently wrong for the fused ones.
"""

from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F

from funcdiff._jets import rules
from funcdiff._jets.jet import COMPOSITES, RULES, Jet, NoRuleError, Rule, apply, carry, close
from funcdiff._jets.operations import rule
from funcdiff._torch.functions import ungated
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.trees import tree_leaves


def _on(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Apply ``func`` to arguments of which some may be jets."""
    jets = any(isinstance(leaf, Jet) for leaf in tree_leaves((args, kwargs)))
    return apply(func, args, kwargs) if jets else func(*args, **kwargs)


def _add(x: Any, bias: Any) -> Any:
    return x if bias is None else _on(torch.add, x, bias)


@rule("linear")
def _linear(func: Any, args: Any, kwargs: Any) -> Any:
    def parse(input: Any, weight: Any, bias: Any = None) -> tuple[Any, Any, Any]:
        return input, weight, bias

    x, weight, bias = parse(*args, **kwargs)
    if isinstance(weight, Jet) or isinstance(bias, Jet):
        return _add(_on(torch.matmul, x, weight.t()), bias)
    return carry([x], func(x.value, weight, bias), lambda t: func(t, weight))


@rule("matmul __matmul__ mm mv")
def _matmul(func: Any, args: Any, kwargs: Any) -> Any:
    x, y = args
    # By a constant matrix: one product over all leading axes, without vmap.
    if isinstance(x, Jet) and not isinstance(y, Jet) and y.dim() <= 2:
        return carry([x], func(x.value, y), lambda t: torch.matmul(t, y))
    if isinstance(y, Jet) and not isinstance(x, Jet) and x.dim() <= 2:
        column = y.value.dim() == 1
        return carry([y], func(x, y.value), lambda t: torch.matmul(t, x.t()) if column else torch.matmul(x, t))
    return rules.bilinear(*close(torch.matmul, args, kwargs))


@rule("bilinear")
def _bilinear(func: Any, args: Any, kwargs: Any) -> Any:
    def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
        return _add(_on(torch.einsum, "...i,oij,...j->...o", input1, weight, input2), bias)

    return bilinear(*args, **kwargs)


@rule("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
def _convolution(func: Any, args: Any, kwargs: Any) -> Any:
    def parse(input: Any, weight: Any, bias: Any = None, *rest: Any, **options: Any) -> Any:
        product = rules.bilinear if isinstance(input, Jet) or isinstance(weight, Jet) else None
        if product is None:
            raise NoRuleError("convolution whose bias alone varies")
        y = product(*close(func, (input, weight, None, *rest), options))
        return y if bias is None else _add(y, bias.reshape(-1, *(1,) * (weight.dim() - 2)))

    return parse(*args, **kwargs)


@rule("addmm addmv addbmm baddbmm addr")
def _add_product(func: Any, args: Any, kwargs: Any) -> Any:
    product = {"addmv": torch.mv, "addr": torch.outer, "baddbmm": torch.bmm}.get(func.__name__, torch.matmul)
    addend, x, y = args
    y = _on(product, x, y)
    if func.__name__ == "addbmm":
        y = y.sum(0)
    return _on(torch.add, _on(torch.mul, addend, kwargs.get("beta", 1)), _on(torch.mul, y, kwargs.get("alpha", 1)))


def _standardise(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    centred = _on(torch.sub, x, _on(torch.mean, x, axes, keepdim=True))
    variance = _on(torch.mean, _on(torch.square, centred), axes, keepdim=True)
    return _on(torch.mul, centred, _on(torch.rsqrt, _on(torch.add, variance, eps)))


def _scaled(x: Any, weight: Any, bias: Any, shape: tuple[int, ...] | None = None) -> Any:
    """Multiply by the weight and add the bias, both reshaped to ``shape`` first when one is given."""
    if shape is not None:
        weight, bias = (p if p is None else p.reshape(shape) for p in (weight, bias))
    return _add(x if weight is None else _on(torch.mul, x, weight), bias)


def _channels(x: Any) -> tuple[int, ...]:
    return (1, -1, *(1,) * (x.dim() - 2))


@rule("layer_norm")
def _layer_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def layer_norm(
        input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
    ) -> Any:
        return _scaled(_standardise(input, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)

    return layer_norm(*args, **kwargs)


@rule("rms_norm")
def _rms_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
        eps = torch.finfo(input.dtype).eps if eps is None else eps
        axes = tuple(range(-len(normalized_shape), 0))
        square = _on(torch.mean, _on(torch.square, input), axes, keepdim=True)
        return _scaled(_on(torch.mul, input, _on(torch.rsqrt, _on(torch.add, square, eps))), weight, None)

    return rms_norm(*args, **kwargs)


@rule("group_norm")
def _group_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def group_norm(
        input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
    ) -> Any:
        groups = input.reshape(input.shape[0], num_groups, -1)
        return _scaled(_standardise(groups, (-1,), eps).reshape(input.shape), weight, bias, _channels(input))

    return group_norm(*args, **kwargs)


def _batch_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def batch_norm(
        input: Any,
        running_mean: Any,
        running_var: Any,
        weight: Any = None,
        bias: Any = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Any:
        if training and running_mean is not None:
            raise RefusedError(
                "func changes the running statistics of a batch norm in training mode, at each evaluation: call "
                "module.eval(), or use track_running_stats=False"
            )
        shape = _channels(input)
        if training:
            x = _standardise(input, (0, *range(2, input.dim())), eps)
        else:
            centred = _on(torch.sub, input, running_mean.reshape(shape))
            x = _on(torch.mul, centred, (running_var + eps).rsqrt().reshape(shape))
        return _scaled(x, weight, bias, shape)

    return batch_norm(*args, **kwargs)


def _instance_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def instance_norm(
        input: Any,
        running_mean: Any = None,
        running_var: Any = None,
        weight: Any = None,
        bias: Any = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Any:
        if not use_input_stats:
            return _batch_norm(func, (input, running_mean, running_var, weight, bias, False, momentum, eps), {})
        if running_mean is not None:
            raise RefusedError("instance norm with running statistics is not supported: use track_running_stats=False")
        return _scaled(_standardise(input, tuple(range(2, input.dim())), eps), weight, bias, _channels(input))

    return instance_norm(*args, **kwargs)


# torch.batch_norm and torch.instance_norm, with other orders of their arguments, have no rule.
RULES.update({F.batch_norm: _batch_norm, F.instance_norm: _instance_norm})
NORMS: dict[Any, Rule] = {
    **dict.fromkeys((F.layer_norm, torch.layer_norm), _layer_norm),
    **dict.fromkeys((F.group_norm, torch.group_norm), _group_norm),
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
}


@rule("glu")
def _glu(func: Any, args: Any, kwargs: Any) -> Any:
    def glu(input: Any, dim: int = -1) -> Any:
        signal, gate = input.chunk(2, dim)
        return signal * gate.sigmoid()

    return glu(*args, **kwargs)


@rule("scaled_dot_product_attention")
def _attention(func: Any, args: Any, kwargs: Any) -> Any:
    def attention(
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        if enable_gqa:
            raise NoRuleError("grouped-query attention")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = _on(torch.matmul, _on(torch.mul, query, scale), key.transpose(-2, -1))
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = _on(torch.masked_fill, scores, ~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = _on(torch.add, scores, attn_mask)
        weights = _on(F.dropout, _on(torch.softmax, scores, -1), dropout_p)
        return _on(torch.matmul, weights, value)

    return attention(*args, **kwargs)


@rule("dropout dropout1d dropout2d dropout3d feature_dropout")
def _dropout(func: Any, args: Any, kwargs: Any) -> Any:
    x, *rest = args
    mask = func(torch.ones_like(x.value), *rest, **kwargs)  # drawn once: value and derivatives share it
    return _on(torch.mul, x, mask)


COMPOSITES.update(
    {
        func: ungated(func)
        for func in vars(F).values()
        if isinstance(func, FunctionType) and func not in RULES and func.__code__.co_filename == F.__file__
    }
)
