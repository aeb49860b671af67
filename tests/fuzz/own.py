"""What a user defines: constants by intent, autograd functions and operators, right and wrong."""

import torch
from custom_functions import Cubed, Forgetful, OldSine, Rounded, WrongForward


@torch.library.custom_op("funcdiff_fuzz::smooth", mutates_args=())
def smooth(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


@smooth.register_fake
def _(x):
    return torch.empty_like(x)


def _backward(ctx, g):
    (x,) = ctx.saved_tensors
    s = torch.sigmoid(x)
    return g * (s + x * s * (1 - s))


smooth.register_autograd(_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]))


@torch.library.custom_op("funcdiff_fuzz::batched", mutates_args=())
def batched(x: torch.Tensor) -> torch.Tensor:
    return x.square()


batched.register_autograd(
    lambda ctx, g: 2 * ctx.saved_tensors[0] * g,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)
torch.library.register_vmap(batched, lambda info, in_dims, x: (batched(x), in_dims[0]))


@torch.library.custom_op("funcdiff_fuzz::opaque", mutates_args=())
def opaque(x: torch.Tensor) -> torch.Tensor:
    return x.square()


RIGHT = {
    "function": lambda x, c: Cubed.apply(x),
    "function in the old style": lambda x, c: OldSine.apply(x),
    "operator": lambda x, c: smooth(x),
    "operator with a rule for vmap": lambda x, c: batched(x),
    "gradient inside": lambda x, c: torch.func.grad(lambda y: (y**3).sum())(x),
    "checkpointed": lambda x, c: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False) * x,
}
CONSTANT = {  # differences see through these
    "detached factor": lambda x, c: x * x.detach().norm(),
    "detached offset": lambda x, c: x.sin() - x.detach(),
    "stopped maximum": lambda x, c: (x - x.detach().amax()).exp(),
    "number": lambda x, c: x * x.detach().sigmoid().mean(),
    "straight through": lambda x, c: (x.square() + (x.round() - x).detach()).sin(),
}
DEFINED = {"straight-through function": lambda x, c: Rounded.apply(2 * x).sin()}
FAULTY = {  # to be put right or refused
    "function wrong in forward mode": lambda x, c: WrongForward.apply(x),
    "function that forgets its input": lambda x, c: Forgetful.apply(x),
    "operator without a derivative": lambda x, c: opaque(x) + x,
}


def norm_without_graph(x):
    with torch.no_grad():
        return x.norm()


UNSAID = {"no_grad": lambda x, c: x * norm_without_graph(x)}  # a constant in reverse mode alone
