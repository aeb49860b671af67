"""Functions with a wrong derivative, for the checks to find."""

import torch


class WrongJvp(torch.autograd.Function):
    """The sine, with a sign error in its forward derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0].cos()

    @staticmethod
    def jvp(ctx, v):
        return -v * ctx.saved_tensors[0].cos()


class Cosine(torch.autograd.Function):
    """The cosine, with a sign error in its backward derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.cos()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0].sin()


class WrongDoubleBackward(WrongJvp):
    """The sine, right once in reverse mode, wrong twice."""

    @staticmethod
    def backward(ctx, u):
        return u * Cosine.apply(ctx.saved_tensors[0])

    @staticmethod
    def jvp(ctx, v):
        return v * ctx.saved_tensors[0].cos()


class _ConstantCurve(Cosine):
    """The cosine, whose derivative is right but cannot be differentiated."""

    @staticmethod
    def backward(ctx, u):
        return -u * ctx.saved_tensors[0].detach().sin()


class WrongOnceMore(WrongJvp):
    """The sine, right twice in reverse mode, wrong when differentiated once more."""

    @staticmethod
    def backward(ctx, u):
        return u * _ConstantCurve.apply(ctx.saved_tensors[0])

    @staticmethod
    def jvp(ctx, v):
        return v * ctx.saved_tensors[0].cos()
