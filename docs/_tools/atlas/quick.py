"""Torch's own kernels for shapes in place of those in Python: forward mode asks for the shape of every zero tangent."""

from __future__ import annotations

import torch
from torch import _meta_registrations
from torch._decomp import global_decomposition_table
from torch.library import Library

_FIRST = ("meta", "post_autograd", "pre_autograd")  # the order in which torch itself takes them
_kept: list[Library] = []  # a library that is let go takes its kernels along


def shapes_in_cpp() -> None:
    """Leave a Python kernel to the operators alone that have none in C++: a third of the time of a run is theirs."""
    python = _meta_registrations._meta_lib_dont_use_me_use_register_meta
    registered = set(python._op_impls)
    python._destroy()
    library = Library("aten", "IMPL", "Meta")
    done = set()
    for operator, kernel in (pair for kind in _FIRST for pair in global_decomposition_table[kind].items()):
        name = operator.name()
        here = name.replace("::", "/") + "/Meta" in registered and name not in done
        if here and not torch._C._dispatch_has_kernel_for_dispatch_key(name, "Meta"):
            library.impl(operator, kernel)
            done.add(name)
    _kept.append(library)
