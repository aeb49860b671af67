"""What torch says when it cannot differentiate a function, and the way out of each."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch

MUTATES = (
    "func writes into one of its arguments in place, which no transform differentiates reliably (yours is untouched); "
    "write out of place, x = x + 1, and use ReLU(inplace=False)"
)

REMEDIES = (
    (
        "calling .item() on a Tensor",
        "func turns a tensor into a Python number (.item(), float(x), torch.tensor([x[0]])), which cuts the derivative "
        "and cannot be batched, not even after .detach(); keep it a tensor, by torch.stack or torch.where",
    ),
    (
        "data-dependent control flow",
        "func branches on the value of a tensor, which vmap cannot batch; write the branch as torch.where, or use "
        "jacobian_loop or batch_jacobian, which loop where vmap cannot batch",
    ),
    (
        "operators that can support dynamic shape",
        "func makes a tensor whose shape depends on values (x[x > 0], nonzero, unique), which vmap cannot batch; "
        "use torch.where or masked_fill, or jacobian_loop or batch_jacobian, which loop where vmap cannot batch",
    ),
    (
        "inplace arithmetic(self, *extra_args) is not possible",
        "func writes batched values in place into a tensor that is not batched; build the result out of place "
        "(torch.stack, torch.cat), or start from x.new_zeros(...), or use jacobian_loop or batch_jacobian, which loop "
        "where vmap cannot batch",
    ),
    (
        "random operation while in randomness error mode",
        "func draws random numbers (dropout in training mode?), one draw a direction; call module.eval(), or pass "
        'randomness="same" for one draw shared by all',
    ),
    (
        "would mutate a captured Tensor",
        "func writes in place into a captured tensor, another argument, or the running statistics of a batch norm in "
        "training mode; call module.eval(), or clone that tensor inside func",
    ),
    ("a leaf Variable that requires grad is being used in an in-place operation", MUTATES),
    (
        "forward AD with",
        "an operation in func has no forward-mode derivative; use a recipe of reverse mode alone: jacobian_reverse, "
        "hessian_reverse_over_reverse, hvp_reverse_over_reverse (fused attention: under sdpa_kernel(SDPBackend.MATH))",
    ),
    (
        "_scaled_dot_product",
        "fused attention has no second derivative; put the call inside "
        "`with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`",
    ),
    (
        "setup_context",
        "func calls a torch.autograd.Function written in the old style, which torch.func refuses; give it a "
        "setup_context, or use a recipe on plain autograd: jacobian_loop, hvp_double_backward",
    ),
    (
        "can't allocate memory",
        "the result, or what is held on the way to it, does not fit into memory; pass chunk_size=... to take fewer "
        'directions at a time, or chunk_size="auto" with budget=... in bytes, or use hvp',
    ),
    (
        "_nested_tensor_from_mask",
        "a TransformerEncoder packs the rows of its padding mask into a nested tensor, which vmap refuses; make it "
        "with enable_nested_tensor=False, or call torch.backends.mha.set_fastpath_enabled(False)",
    ),
    (
        "saved tensor hooks",
        "func uses saved-tensor hooks (checkpointing?), which torch.func refuses; use a recipe on plain autograd: "
        "jacobian_loop, hvp_double_backward",
    ),
)


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, which is no reason to try another recipe."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


_TORCH = str(Path(torch.__file__).parent)


def cannot(error: Exception) -> bool:
    """Whether torch cannot differentiate in this way a function that runs by itself; another way may do."""
    if isinstance(error, RefusedError) or out_of_memory(error):
        return False
    return isinstance(error, RuntimeError) or _raised_by_torch(error)


def _raised_by_torch(error: Exception) -> bool:
    """Whether an error comes from torch's own Python code: higher-order operators without a rule fail in many ways."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_TORCH)


def reason(error: BaseException) -> str:
    """An error in a line, without our remedy for it: that is for who chose the recipe by its name."""
    own = error.__cause__ if " torch said: " in str(error) and error.__cause__ else error
    return str(own).partition("\n")[0]


class RefusedError(RuntimeError):
    """The function does something whose derivative torch's own modes do not agree on."""


def refuse(fragment: str) -> NoReturn:
    """Raise, with its remedy, what torch's transforms would stop at."""
    raise RefusedError(dict(REMEDIES)[fragment])


NUMBER = (
    "func turns a tensor into a Python number (.item(), float(x), torch.tensor([x[0]])), which cuts the derivative; "
    "keep it a tensor, by torch.stack or torch.where, or use .detach() first if the number is meant as a constant"
)
CUSTOM = (
    "func calls a custom torch.autograd.Function, whose backward torch.compile ignores inside a derivative; compile "
    "the derivative itself, torch.compile(jacobian(func)), or call it outside of the compiled function"
)
INFERENCE = (
    "func computes in torch.inference_mode(), whose results reverse mode takes for constants or refuses, and which "
    "forward mode ignores: use .detach() where a constant is meant, and remove inference_mode() where not"
)
LAZY = (
    "expected a module whose parameters exist, got a lazy one that has not run yet (LazyLinear or its like); it takes "
    "its shapes from the first input, so call it once on an input before you differentiate it"
)


def reraise(error: RuntimeError) -> NoReturn:
    """Raise `error` again, below the remedy for it where there is one (and it was not raised by an inner recipe)."""
    for fragment, remedy in REMEDIES if error.__cause__ is None else ():
        if fragment in str(error):
            kind = NotImplementedError if isinstance(error, NotImplementedError) else RuntimeError
            raise kind(f"{remedy}. torch said: {error}") from error
    raise error
