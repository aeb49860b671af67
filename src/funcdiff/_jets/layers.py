"""Network layers written as compositions of simpler operations.

NOTE [norms]. All four compositions of torch 2.13 get the block d²/dweight dx of layer_norm and batch_norm wrong;
written as a composition of simpler operations they are right.
"""

from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F

from funcdiff._jets import rules
from funcdiff._jets.jet import COMPOSITES, RULES, Jet, NoRuleError, carry, close, jet_of, on, plain
from funcdiff._jets.operations import form, in_single, named, rule, unaltered
from funcdiff._torch.functions import ungated, unpooled, weight_norm
from funcdiff._torch.layers import is_for_one_call
from funcdiff._torch.messages import RefusedError
from funcdiff._torch.transforms import transforms_active


def _add(x: Any, bias: Any) -> Any:
    return x if bias is None else on(torch.add, x, bias)


@rule("linear")
def _linear(func: Any, args: Any, kwargs: Any) -> Any:
    def parse(input: Any, weight: Any, bias: Any = None) -> tuple[Any, Any, Any]:
        return input, weight, bias

    x, weight, bias = parse(*args, **kwargs)
    if isinstance(weight, Jet) or isinstance(bias, Jet):
        return _add(on(torch.matmul, x, weight.t()), bias)
    return carry([x], func(x.value, weight, bias), lambda t: func(t, weight))


@rule("matmul __matmul__ mm mv")
def _matmul(func: Any, args: Any, kwargs: Any) -> Any:
    x, y = args
    # A constant matrix multiplies all leading axes in one product, without vmap.
    if isinstance(x, Jet) and not isinstance(y, Jet) and y.dim() <= 2:
        return carry([x], func(x.value, y), lambda t: torch.matmul(t, y))
    if isinstance(y, Jet) and not isinstance(x, Jet) and x.dim() <= 2:
        column = y.value.dim() == 1
        return carry([y], func(x, y.value), lambda t: torch.matmul(t, x.t()) if column else torch.matmul(x, t))
    return rules.bilinear(*close(torch.matmul, args, kwargs))


@rule("bilinear")
def _bilinear(func: Any, args: Any, kwargs: Any) -> Any:
    def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
        return _add(on(torch.einsum, "...i,oij,...j->...o", input1, weight, input2), bias)

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
    y = on(product, x, y)
    if func.__name__ == "addbmm":
        y = y.sum(0)
    return on(torch.add, on(torch.mul, addend, kwargs.get("beta", 1)), on(torch.mul, y, kwargs.get("alpha", 1)))


def _mean(x: Any, axes: tuple[int, ...]) -> Any:
    """The mean, of stacks as it is of values: its axes are counted from the last one."""
    x, value = jet_of(x), plain(x)
    axes = tuple(axis % value.dim() - value.dim() for axis in axes)

    def mean(t: Any) -> Any:
        return t.mean(axes, keepdim=True)

    return carry([x], mean(value), mean) if isinstance(x, Jet) else mean(x)


@in_single
def _standardise(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    centred = on(torch.sub, x, _mean(x, axes))
    variance = _mean(on(torch.square, centred), axes)
    return on(torch.mul, centred, on(torch.rsqrt, on(torch.add, variance, eps)))


def _scaled(x: Any, weight: Any, bias: Any, shape: tuple[int, ...] | None = None) -> Any:
    """Multiply by the weight and add the bias, both reshaped to ``shape`` first when one is given."""
    if shape is not None:
        weight, bias = (p if p is None else p.reshape(shape) for p in (weight, bias))
    return _add(x if weight is None else on(torch.mul, x, weight), bias)


def _channels(x: Any) -> tuple[int, ...]:
    return (1, -1, *(1,) * (x.dim() - 2))


def _layer_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def layer_norm(
        input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
    ) -> Any:
        return _scaled(_standardise(input, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)

    return layer_norm(*args, **kwargs)


@in_single
def _over_root(x: Any, axes: tuple[int, ...], eps: float | None) -> Any:
    """Divide by the root of the mean square; without `eps` that of the precision that this is computed in."""
    square = _mean(on(torch.square, x), axes)
    return on(torch.mul, x, on(torch.rsqrt, on(torch.add, square, torch.finfo(x.dtype).eps if eps is None else eps)))


@rule("rms_norm")
def _rms_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
        return _scaled(_over_root(input, tuple(range(-len(normalized_shape), 0)), eps), weight, None)

    return rms_norm(*args, **kwargs)


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
        if training and running_mean is not None and not is_for_one_call(running_mean):
            raise RefusedError(
                "func contains a batch norm in training mode, which changes its running statistics at each call. Call "
                "module.eval(), or use track_running_stats=False"
            )
        shape = _channels(input)
        if training:
            x = _standardise(input, (0, *range(2, input.dim())), eps)
        else:
            centred = on(torch.sub, input, running_mean.reshape(shape))
            x = on(torch.mul, centred, (running_var + eps).rsqrt().reshape(shape))
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
form(F.layer_norm, torch.layer_norm, twice=True)(_layer_norm)
form(F.group_norm, torch.group_norm, twice=True)(_group_norm)
form(F.batch_norm, twice=True)(_batch_norm)
form(F.instance_norm, twice=True)(_instance_norm)


@rule("glu")
def _glu(func: Any, args: Any, kwargs: Any) -> Any:
    def glu(input: Any, dim: int = -1) -> Any:
        signal, gate = input.chunk(2, dim)
        return signal * gate.sigmoid()

    return glu(*args, **kwargs)


@form(torch.embedding)
def _embedding(func: Any, args: Any, kwargs: Any) -> Any:
    def embedding(
        weight: Any, indices: Any, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
    ) -> Any:
        if scale_grad_by_freq:  # its gradient is that of no function
            return unaltered(func, args, kwargs)
        rows = on(torch.index_select, weight, 0, indices.flatten()).reshape(*indices.shape, weight.shape[1])
        padding = (indices == padding_idx).unsqueeze(-1)
        return rows if padding_idx < 0 else on(torch.where, padding, rows.detach(), rows)

    return embedding(*args, **kwargs)


@form(*unpooled)
def _max_unpool(func: Any, args: Any, kwargs: Any) -> Any:
    """As a selection of the entries that arrive: torch's gradient counts those, too, that others overwrite."""

    def max_unpool(input: Any, indices: Any, output_size: Any, *rest: Any) -> Any:
        value, axes = plain(input), len(output_size)
        numbers = torch.arange(1.0, 1 + value.shape[-axes:].numel(), dtype=torch.float64, device=value.device)
        source = func(numbers.reshape(value.shape[-axes:]).expand(value.shape), indices, output_size, *rest).long()
        chosen = (source - 1).clamp(min=0).flatten(-axes)
        rows = on(torch.gather, input.flatten(-axes), -1, chosen)
        return on(torch.masked_fill, rows, (source == 0).flatten(-axes), 0).reshape(source.shape)

    return max_unpool(*args, **kwargs)


@form(weight_norm)
def _weight_norm(func: Any, args: Any, kwargs: Any) -> Any:
    def weight_norm(v: Any, g: Any, dim: int = 0) -> Any:
        axes = [axis for axis in range(v.dim()) if axis != dim]
        over_length = in_single(lambda v: on(torch.sum, on(torch.square, v), axes, keepdim=True).rsqrt())
        return on(torch.mul, v, on(torch.mul, g, over_length(v)))

    return weight_norm(*args, **kwargs)


@form(torch.rrelu)
def _random_relu(func: Any, args: Any, kwargs: Any) -> Any:
    def rrelu(input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, **rest: Any) -> Any:
        return unaltered(func, args, kwargs) if training else on(F.leaky_relu, input, (lower + upper) / 2)

    return rrelu(*args, **kwargs)


@rule("dropout dropout1d dropout2d dropout3d feature_dropout")
def _dropout(func: Any, args: Any, kwargs: Any) -> Any:
    x, *rest = args
    mask = func(torch.ones_like(x.value), *rest, **kwargs)  # drawn once: value and derivatives share it
    return on(torch.mul, x, mask)


COMPOSITES.update(
    {
        func: ungated(func)
        for func in vars(F).values()
        if isinstance(func, FunctionType) and func not in RULES and func.__code__.co_filename == F.__file__
    }
)


@form(*named("as_strided as_strided_copy"), twice=True)
def _as_strided(func: Any, args: Any, kwargs: Any) -> Any:
    """A whole tensor, strided as a selection of its entries: under vmap, torch 2.13 strides over the whole batch."""

    def as_strided(input: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
        value, index = plain(input), torch.tensor(storage_offset or 0, device=plain(input).device)
        for count, step in zip(size, stride, strict=True):
            index = index.unsqueeze(-1) + step * torch.arange(count, device=index.device)
        last = (storage_offset or 0) + sum(step * (count - 1) for count, step in zip(size, stride, strict=True))
        inside = (
            value.is_contiguous() and (storage_offset is None or value.storage_offset() == 0) and last < value.numel()
        )
        if not inside and transforms_active():
            raise RefusedError(
                "func calls as_strided, which reads the memory of the whole batch under vmap. Select entries by their "
                "index"
            )
        return input.reshape(-1)[index] if inside else unaltered(func, args, kwargs)

    return as_strided(*args, **kwargs)


@form(*named("select_scatter"), twice=True)
def _select_scatter(func: Any, args: Any, kwargs: Any) -> Any:
    """As a choice between both: the reverse derivative of torch 2.13's forward one is wrong."""

    def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
        dim %= input.dim()
        count = input.shape[dim]
        chosen = torch.arange(count, device=plain(input).device) == index % count
        chosen = chosen.reshape(-1, *(1,) * (input.dim() - 1 - dim))
        return on(torch.where, chosen, src.unsqueeze(dim), input)

    return select_scatter(*args, **kwargs)


@form(*named("prelu"), twice=True)
def _prelu(func: Any, args: Any, kwargs: Any) -> Any:
    """Torch 2.13's own is wrong under vmap where a batch has as many rows as there are outputs."""

    def prelu(input: Any, weight: Any) -> Any:
        if weight.numel() > 1 and input.dim() > 2:
            weight = weight.reshape(-1, *(1,) * (input.dim() - 2))
        return on(torch.where, on(torch.gt, input, 0), input, on(torch.mul, weight, input))

    return prelu(*args, **kwargs)
