"""Attention as softmax and products: of torch's fused kernels hardly one has a second derivative."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from funcdiff._jets.jet import on, plain
from funcdiff._jets.operations import form
from funcdiff._torch.functions import packs_rows


@form(F.scaled_dot_product_attention)
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
            groups = query.shape[-3] // key.shape[-3]
            key, value = (on(torch.repeat_interleave, x, groups, -3) for x in (key, value))
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = on(torch.matmul, on(torch.mul, query, scale), key.transpose(-2, -1))
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        if attn_mask is None:
            return on(torch.matmul, on(F.dropout, on(torch.softmax, scores, -1), dropout_p), value)
        hidden = ~attn_mask if attn_mask.dtype == torch.bool else plain(attn_mask) == -math.inf
        empty = hidden.all(-1, keepdim=True)  # queries that may see nothing: torch gives zeros
        if attn_mask.dtype != torch.bool:
            scores = on(torch.add, scores, on(torch.masked_fill, attn_mask, hidden, 0.0))
        scores = on(torch.masked_fill, scores, hidden & ~empty, -math.inf)
        weights = on(torch.masked_fill, on(torch.softmax, scores, -1), empty, 0.0)
        return on(torch.matmul, on(F.dropout, weights, dropout_p), value)

    return attention(*args, **kwargs)


@form(packs_rows)
def _ragged(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a transformer may pack its rows by a padding mask: packed ones have no second derivative."""
    return False
