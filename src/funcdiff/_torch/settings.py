"""The state of torch on which it depends what a function does."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch.backends import mha
from torch.nn.modules import module
from torch.overrides import _get_current_function_mode_stack

_C: Any = torch._C  # whose settings torch's types do not all know
_mha: Any = mha  # the switch itself: asking for it takes longer


def settings() -> tuple[Hashable, ...]:
    """Grad mode, default dtype, the kinds of attention, cuDNN, autocast."""
    found = (
        *(_C.is_grad_enabled(), _C.get_default_dtype(), _C._get_deterministic_algorithms()),
        *(_C._get_flash_sdp_enabled(), _C._get_mem_efficient_sdp_enabled(), _C._get_cudnn_sdp_enabled()),
        *(_C._get_math_sdp_enabled(), _mha._is_fastpath_enabled, _C._get_cudnn_enabled()),
    )
    if _C._is_any_autocast_enabled():
        devices = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        return *found, *((device, torch.get_autocast_dtype(device)) for device in devices)
    return found


def overridden() -> bool:
    """Whether anything is around a call that `overriding` finds."""
    return bool(_C._len_torch_function_stack() or module._global_forward_hooks or module._global_forward_pre_hooks)


def overriding() -> list[Any]:
    """The function modes and the global hooks around a call."""
    modes = _get_current_function_mode_stack() if _C._len_torch_function_stack() else []  # type: ignore[no-untyped-call]  # torch leaves it untyped
    hooks = module._global_forward_hooks, module._global_forward_pre_hooks
    return [*modes, *(some for some in hooks if some)]
