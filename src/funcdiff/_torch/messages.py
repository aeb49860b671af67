"""What torch says when it cannot differentiate a function, and the way out of each."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch

MUTATES = (
    "func writes into one of its arguments, which no transform differentiates reliably (your tensor is unchanged). "
    "Write x = x + 1 in place of x += 1, and use ReLU(inplace=False)"
)

CUDNN = (
    "the library cuDNN has no second derivative of RNN, LSTM and GRU, and in evaluation mode no first one. Put the "
    "call of the layer inside `with torch.backends.cudnn.flags(enabled=False):`"
)
TOO_LARGE = (
    "the result, or what is needed to compute it, does not fit in memory. Pass chunk_size=... to compute fewer "
    'directions at a time, or chunk_size="auto" with budget=... in bytes, or use hvp'
)
REMEDIES = (
    (
        "either (1) calling .item() on a Tensor or (2)",
        "func converts a tensor to a Python number (.item(), float(x), torch.tensor([x[0]])) or branches on its value. "
        "A number carries no derivative and cannot be batched, not even after .detach(). Keep it a tensor: use "
        "torch.stack or torch.where. For a branch, or a constant after .detach(), use jacobian_loop or batch_jacobian, "
        "which loop if vmap cannot batch",
    ),
    (
        "calling .item() on a Tensor",
        "func converts a tensor to a Python number (.item(), float(x), torch.tensor([x[0]])). A number carries no "
        "derivative and cannot be batched, not even after .detach(). Keep it a tensor: use torch.stack or torch.where",
    ),
    (
        "Trying to backward through the graph a second time",
        "func takes a gradient with torch.autograd.grad, which frees the graph, and then uses numbers of that graph. "
        "Pass create_graph=True, so that the gradient can be differentiated as well",
    ),
    (
        "data-dependent control flow",
        "func branches on the value of a tensor, which vmap cannot batch. Write the branch as torch.where, or use "
        "jacobian_loop or batch_jacobian, which loop if vmap cannot batch",
    ),
    (
        "operators that can support dynamic shape",
        "func makes a tensor whose shape depends on values (x[x > 0], nonzero, unique), which vmap cannot batch. "
        "Use torch.where or masked_fill, or jacobian_loop or batch_jacobian, which loop if vmap cannot batch",
    ),
    (
        "inplace arithmetic(self, *extra_args) is not possible",
        "func writes the values of many rows in place into a tensor that all rows share. Build the result with "
        "torch.stack or torch.cat, or start from x.new_zeros(...), or use jacobian_loop or batch_jacobian, which loop "
        "if vmap cannot batch",
    ),
    (
        "doesn't match the broadcast shape",
        "func writes in place into a tensor that is too small for the result. Inside vmap, all rows may share this "
        "tensor. nn.LSTM, nn.GRU and nn.RNN write into the initial state that they make: pass one of your own, such as "
        "x.new_zeros(layers, size). Elsewhere, write y = y + x in place of y += x, or use batch_jacobian or "
        "batch_hessian, which loop if vmap cannot batch",
    ),
    (
        "random operation while in randomness error mode",
        "func draws random numbers (dropout in training mode?), and each direction may get other numbers. Call "
        "module.eval(), or draw the numbers before and let func use them, or pass "
        'randomness="same", where it is an option, to draw the same numbers for all',
    ),
    (
        "would mutate a captured Tensor",
        "func writes in place into a tensor that it did not make. If this is a captured tensor or another argument, "
        "clone it inside func. If func writes a vector into a module's parameters, use module_function and ravel "
        "instead. If func calls a batch norm in training mode, it writes its running statistics: call module.eval() "
        "first, or use func, parameters = module_function(module, training=True) with the whole batch",
    ),
    ("a leaf Variable that requires grad is being used in an in-place operation", MUTATES),
    (
        "_scaled_dot_product",
        "fused attention has a first derivative in reverse mode only, and no second derivative. Use jacobian, hessian "
        "or hvp, which choose a method that works, or put the call inside "
        "`with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`",
    ),
    ("cudnn RNN backward can only be called in training mode", CUDNN),
    ("_cudnn_rnn", CUDNN),
    (
        "forward AD with",
        "an operation in func has no forward-mode derivative. Use jacobian, hessian or hvp, which choose a method that "
        "works if there is one. By name, reverse mode works if torch has its derivatives: jacobian_loop, "
        "hessian_reverse_over_reverse, hvp_reverse_over_reverse",
    ),
    (
        "setup_context",
        "func calls a torch.autograd.Function without setup_context, which torch.func does not support. Add a "
        "setup_context to the class, or use plain autograd: jacobian_loop, hvp_double_backward",
    ),
    ("can't allocate memory", TOO_LARGE),
    ("out of memory", TOO_LARGE),
    (
        "_nested_tensor_from_mask",
        "a TransformerEncoder with a padding mask makes a nested tensor, which vmap does not support. Create it with "
        "enable_nested_tensor=False, or call torch.backends.mha.set_fastpath_enabled(False)",
    ),
    (
        "use_reentrant=True",
        "func calls torch.utils.checkpoint with use_reentrant=True, which only .backward() differentiates. Pass "
        "use_reentrant=False to checkpoint",
    ),
    (
        "saved tensor hooks",
        "func uses hooks on saved tensors (checkpointing?), which torch.func does not support. Use plain "
        "autograd: jacobian_loop, hvp_double_backward",
    ),
)


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, which is no reason to try another recipe."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


_TORCH = str(Path(torch.__file__).parent)


BLOCKED = "is not differentiable with respect to argument"


def cannot(error: Exception) -> bool:
    """Whether torch cannot differentiate in this way a function that runs by itself; another way may do."""
    if isinstance(error, RefusedError):
        return error.only_here
    if out_of_memory(error):
        return False
    return isinstance(error, RuntimeError) or _raised_by_torch(error)


def _raised_by_torch(error: Exception) -> bool:
    """Whether an error comes from torch's own Python code: higher-order operators without a rule fail in many ways."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_TORCH)


def reason(error: BaseException) -> str:
    """An error in a line that is never empty, without our remedy: that is for who chose the recipe by its name."""
    own = error.__cause__ if " torch said: " in str(error) and error.__cause__ else error
    return str(own).strip().partition("\n")[0] or type(own).__name__


class RefusedError(RuntimeError):
    """What `func` does is not differentiated, because the result would be wrong or would depend on the method.

    It is a `RuntimeError`. The message says what `func` does, and what to do instead.
    """

    __module__ = "funcdiff"  # where it is public

    only_here = False  # another way of differentiating may be right


def refuse_here(message: str) -> NoReturn:
    """Refuse what would be wrong in this way of differentiating, and may be right in another."""
    error = RefusedError(message)
    error.only_here = True
    raise error


def refuse(fragment: str) -> NoReturn:
    """Raise, with its remedy, what torch's transforms would stop at."""
    raise RefusedError(dict(REMEDIES)[fragment])


NUMBER = (
    "func converts a tensor to a Python number (.item(), float(x), torch.tensor([x[0]])), which carries no derivative. "
    "Keep it a tensor: use torch.stack or torch.where. If you mean a constant, call .detach() first"
)
CUSTOM = (
    "func calls a custom torch.autograd.Function, whose backward torch.compile ignores inside a derivative. Compile "
    "the derivative itself, torch.compile(jacobian(func)), or call it outside of the compiled function"
)
INFERENCE = (
    "func computes in torch.inference_mode(). Reverse mode treats the result as a constant or refuses it, and forward "
    "mode ignores inference_mode. If you mean a constant, use .detach(); if not, remove inference_mode()"
)
LAZY = (
    "expected a module whose parameters exist, got a lazy one that has not run yet, such as LazyLinear. It creates its "
    "parameters at the first call: call it once before you differentiate it"
)


DDP = (
    "func uses a module in DistributedDataParallel. Its second derivatives are those of this process's own data, not "
    "the mean over all processes, and torch raises no error. Use its .module, and funcdiff.distributed.hvp_operator "
    "for the product over all data"
)
FSDP = (
    "func uses a module in FullyShardedDataParallel, which keeps parameters as parts of flat vectors. Use "
    "torch.distributed.fsdp.fully_shard instead, which module_function supports"
)
FSDP2 = (
    "func calls a module under fully_shard, whose hooks free parameters that second derivatives need. Make it a "
    "function of its parameters, without hooks: func, parameters = module_function(module)"
)


def reraise(error: RuntimeError) -> NoReturn:
    """Raise `error` again, below the remedy for it where there is one (and it was not raised by an inner recipe)."""
    for fragment, remedy in REMEDIES if error.__cause__ is None else ():
        if fragment in str(error):
            kind = next(
                (k for k in (NotImplementedError, torch.OutOfMemoryError) if isinstance(error, k)), RuntimeError
            )
            raise kind(f"{remedy}. torch said: {error}") from error
    raise error
