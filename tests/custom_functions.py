"""Autograd functions as users write them, right and wrong; for the new style, torch can make a rule for vmap."""

import torch


class Cubed(torch.autograd.Function):
    """Right, in both modes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, u):
        return 3 * ctx.saved_tensors[0] ** 2 * u

    @staticmethod
    def jvp(ctx, v):
        return 3 * ctx.saved_tensors[0] ** 2 * v


class WrongForward(Cubed):
    """Right in reverse mode; the forward rule forgets a factor."""

    @staticmethod
    def jvp(ctx, v):
        return ctx.saved_tensors[0] ** 2 * v


class Identity(torch.autograd.Function):
    """What a test gives rules to."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass


class OldCubed(torch.autograd.Function):
    """Right, in the old style, which transforms refuse."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, u):
        return 3 * ctx.saved_tensors[0] ** 2 * u


class OldSine(torch.autograd.Function):
    """The same for the sine."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0].cos()


class Forgetful(OldCubed):
    """Right once; its backward starts a graph of its own, so that the second derivative misses a part."""

    @staticmethod
    def backward(ctx, u):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(x**3, x, u)[0]


class OldRounded(torch.autograd.Function):
    """Rounds, and passes derivatives through: what it defines is no derivative of its values."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, u):
        return u


class Rounded(OldRounded):
    """The same in the new style, which the compiler traces."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass
