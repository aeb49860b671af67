"""The state of torch on which it depends what a function does."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch.nn.modules import module
from torch.overrides import _get_current_function_mode_stack

_SETTINGS = (
    *(torch.is_grad_enabled, torch.get_default_dtype, torch._C._get_deterministic_algorithms),
    *(torch._C._get_flash_sdp_enabled, torch._C._get_mem_efficient_sdp_enabled, torch._C._get_cudnn_sdp_enabled),
    *(torch._C._get_math_sdp_enabled, torch.backends.mha.get_fastpath_enabled),
)


def settings() -> tuple[Hashable, ...]:
    """Grad mode, default dtype, the kinds of attention, autocast."""
    found: list[Hashable] = [get() for get in _SETTINGS]
    if torch._C._is_any_autocast_enabled():
        devices = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        found += [(device, torch.get_autocast_dtype(device)) for device in devices]
    return tuple(found)


def overriding() -> list[Any]:
    """The function modes and the global hooks around a call."""
    modes = _get_current_function_mode_stack() if torch._C._len_torch_function_stack() else []  # type: ignore[no-untyped-call]  # torch leaves it untyped
    hooks = module._global_forward_hooks, module._global_forward_pre_hooks
    return [*modes, *(some for some in hooks if some)]
