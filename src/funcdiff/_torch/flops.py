"""How many floating-point operations one call of a torch operation takes: 2 for each multiply-add of a matrix product.

torch's own registry (`torch.utils.flop_counter.flop_registry`) has the formulas; here stand those that it lacks or that
are wrong in it.
"""

import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils import flop_counter

aten = torch.ops.aten

# Operations that multiply matrices and have no formula: their kernels choose the algorithm.
UNCOUNTED = re.compile(
    "_?linalg_(?!check_errors)|_?cholesky|triangular_solve|lu_|geqrf|ormqr|_fft|mkldnn_|_cudnn_rnn|_trilinear|_?cdist|_?pdist|"
    "_native_multi_head_attention|_transformer_encoder_layer_fwd|_sparse|_scaled_dot_product"
)


def _product(a: torch.Tensor, b: torch.Tensor, *_: Any, **__: Any) -> int:
    return 2 * a.numel() * (b.shape[-1] if b.ndim > 1 else 1)


def _added_product(_: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *__: Any, **___: Any) -> int:
    return _product(a, b)


def _convolution_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: tuple[bool, bool, bool],
    **_kwargs: Any,
) -> int:
    # Each of the two products has a multiply-add for each of the forward pass. torch's formula counts the weight's
    # gradient as if it had one group, and vmap turns a batch of convolutions into groups.
    pixels = prod((x if transposed else grad).shape[2:])
    forward = 2 * x.shape[0] * pixels * weight.numel()
    return forward * (output_mask[0] + output_mask[1])


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return int(flop_counter.sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call] # torch leaves it untyped


def _attention_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    return int(flop_counter.sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call] # torch leaves it untyped


FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_counter.flop_registry,
    # torch's own formulas of these search their arguments for trees, which takes longer than a small product.
    aten.mm: _product,
    aten.bmm: _product,
    aten.addmm: _added_product,
    aten.baddbmm: _added_product,
    aten.mv: _product,
    aten.dot: _product,
    aten.vdot: _product,
    aten.addmv: _added_product,
    aten.addbmm: _added_product,
    aten._addmm_activation: _added_product,
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
