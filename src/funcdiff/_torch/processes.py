"""Tensors and modules that belong to several processes, as `torch.distributed` has them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from funcdiff._torch.trees import Tree, flatten

M = TypeVar("M", bound=nn.Module)
_c10d: Any = dist.distributed_c10d if dist.is_available() else None  # beneath the public names

# Before torch 2.13 it has a longer name.
all_gather_single: Any = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)


def spread(x: Any) -> bool:
    """Whether a tensor is a DTensor; without a search, and without an import, where there is none."""
    return type(x) is not Tensor and "torch.distributed.tensor" in sys.modules and isinstance(x, _dtensor())


def any_spread(tree: Tree) -> bool:
    """Whether one of the tensors is."""
    return any(map(spread, [x for x in flatten(tree)[0] if type(x) is not Tensor]))


def beside(x: Tensor, like: Tensor) -> Tensor:
    """`x`, the same on every process, as a tensor that can be computed with beside `like`."""
    if not spread(like):
        return x
    from torch.distributed.tensor import Replicate

    mesh = like.device_mesh  # type: ignore[attr-defined]  # `like` is a DTensor
    made: Tensor = _dtensor().from_local(x, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return made


def _dtensor() -> Any:
    return sys.modules["torch.distributed.tensor"].DTensor


def running() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized()


def wrapper_of(module: nn.Module) -> str:
    """Which of torch's wrappers for several processes a module is in: "DDP", "FSDP", "FSDP2" or none."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return "DDP"
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return ""
    if isinstance(module, fsdp.FullyShardedDataParallel):
        return "FSDP"
    return "FSDP2" if isinstance(module, fsdp.FSDPModule) else ""


def without_hooks(module: M, copies: dict[nn.Module, nn.Module] | None = None) -> M:
    """The module without what `fully_shard` added: the same parameters and buffers, in copies of the layers alone.

    NOTE [hooks]. The hooks of `fully_shard` gather parameters into memory that they free before a second derivative
    needs it. Without them the sharded parameters are tensors like others, which `functional_call` replaces.
    """
    copies = {} if copies is None else copies
    if module in copies:
        return copies[module]  # type: ignore[return-value]  # a copy is of the class of its module
    kind = type(module)
    if wrapper_of(module) == "FSDP2":
        kind = kind.__mro__[kind._orig_cls_mro_index]  # type: ignore[attr-defined]  # of FSDPModule
    copy = copies[module] = kind.__new__(kind)
    copy.__dict__.update(vars(module))
    for name in ("_forward_pre_hooks", "_forward_hooks"):
        hooks = vars(module)[name]
        copy.__dict__[name] = type(hooks)({key: hook for key, hook in hooks.items() if not _of_fsdp(hook)})
    copy.__dict__["_parameters"] = module._parameters.copy()  # buffers stay those of the module
    copy.__dict__["_modules"] = {
        name: None if part is None else without_hooks(part, copies) for name, part in module._modules.items()
    }
    return copy


def _of_fsdp(hook: Callable[..., Any]) -> bool:
    code = getattr(hook, "__module__", None) or ""
    return code.startswith("torch.distributed.fsdp")


def group_size(func: Any, args: Any) -> int:
    """How many processes a collective operator is called for; 1 for an operator that is none."""
    for arg in args[1:]:
        if isinstance(arg, torch.ScriptObject):
            return int(dist.ProcessGroup.unbox(arg).size())
        if isinstance(arg, str) and func.namespace == "_c10d_functional":
            return int(_c10d._resolve_process_group(arg).size())
    return 1


def store_of(group: Any) -> Any:
    """Where the processes of a group meet, also when the group is broken."""
    return _c10d.PrefixStore(f"funcdiff {group.group_name}", _c10d._get_default_store())


def timeout_of(group: Any, device: torch.device) -> Any:
    """How long a collective of the group waits."""
    return group._get_backend(device).options._timeout


def device_of(group: Any) -> torch.device:
    """Where the tensors of the group's collectives lie."""
    device = torch.device(_c10d._get_object_coll_device(group))
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device
