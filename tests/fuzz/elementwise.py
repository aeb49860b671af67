"""Operations entry by entry, reductions and losses: each of a tensor of any shape, and of constants `c(*shape)`."""

import torch
import torch.nn.functional as F
from torch import special


def positive(x):
    return x.square() + 0.5


def inside(x):
    """Between -1 and 1, away from both."""
    return 0.9 * torch.tanh(x)


def share(x):
    """Between 0 and 1, away from both."""
    return 0.1 + 0.8 * torch.sigmoid(x)


SMOOTH = {
    "sin": lambda x, c: torch.sin(x),
    "cos": lambda x, c: x.cos(),
    "tan": lambda x, c: torch.tan(inside(x)),
    "asin": lambda x, c: torch.asin(inside(x)),
    "acos": lambda x, c: torch.acos(inside(x)),
    "atan": lambda x, c: torch.atan(x),
    "sinh": lambda x, c: torch.sinh(inside(x)),
    "cosh": lambda x, c: torch.cosh(inside(x)),
    "tanh": lambda x, c: torch.tanh(x),
    "asinh": lambda x, c: torch.asinh(x),
    "acosh": lambda x, c: torch.acosh(positive(x) + 1),
    "atanh": lambda x, c: torch.atanh(inside(x)),
    "exp": lambda x, c: torch.exp(inside(x)),
    "exp2": lambda x, c: torch.exp2(inside(x)),
    "expm1": lambda x, c: torch.expm1(inside(x)),
    "log": lambda x, c: torch.log(positive(x)),
    "log2": lambda x, c: torch.log2(positive(x)),
    "log10": lambda x, c: torch.log10(positive(x)),
    "log1p": lambda x, c: torch.log1p(positive(x)),
    "sqrt": lambda x, c: torch.sqrt(positive(x)),
    "rsqrt": lambda x, c: torch.rsqrt(positive(x)),
    "square": lambda x, c: torch.square(x),
    "reciprocal": lambda x, c: torch.reciprocal(positive(x)),
    "sigmoid": lambda x, c: torch.sigmoid(x),
    "logit": lambda x, c: torch.logit(share(x)),
    "elu": lambda x, c: F.elu(x),
    "celu": lambda x, c: F.celu(x, alpha=0.7),
    "selu": lambda x, c: F.selu(x),
    "gelu": lambda x, c: F.gelu(x),
    "gelu by tanh": lambda x, c: F.gelu(x, approximate="tanh"),
    "silu": lambda x, c: F.silu(x),
    "mish": lambda x, c: F.mish(x),
    "softplus": lambda x, c: F.softplus(x, beta=2),
    "logsigmoid": lambda x, c: F.logsigmoid(x),
    "softsign": lambda x, c: F.softsign(x),
    "tanhshrink": lambda x, c: F.tanhshrink(x),
    "erf": lambda x, c: torch.erf(x),
    "erfc": lambda x, c: torch.erfc(x),
    "erfinv": lambda x, c: torch.erfinv(inside(x)),
    "lgamma": lambda x, c: torch.lgamma(positive(x)),
    "digamma": lambda x, c: torch.digamma(positive(x)),
    "polygamma": lambda x, c: torch.polygamma(1, positive(x)),
    "i0": lambda x, c: torch.i0(x),
    "i0e": lambda x, c: special.i0e(x),
    "i1": lambda x, c: special.i1(x),
    "i1e": lambda x, c: special.i1e(x),
    "sinc": lambda x, c: torch.sinc(x),
    "ndtr": lambda x, c: special.ndtr(x),
    "log_ndtr": lambda x, c: special.log_ndtr(x),
    "ndtri": lambda x, c: special.ndtri(share(x)),
    "entr": lambda x, c: special.entr(positive(x)),
    "erfcx": lambda x, c: special.erfcx(x),
    "xlogy": lambda x, c: special.xlogy(x, positive(c(1))),
    "xlog1py": lambda x, c: special.xlog1py(x, positive(x)),
    "pow": lambda x, c: x**3,
    "pow of positive": lambda x, c: positive(x).pow(0.7),
    "power of two": lambda x, c: 2.0 ** inside(x),
    "both": lambda x, c: positive(x) ** inside(x),
    "float_power": lambda x, c: torch.float_power(positive(x), 1.5).to(x.dtype),
    "atan2": lambda x, c: torch.atan2(x, positive(x)),
    "hypot": lambda x, c: torch.hypot(x, positive(x)),
    "ldexp": lambda x, c: torch.ldexp(x, torch.ones(1, dtype=torch.int)),
    "logaddexp": lambda x, c: torch.logaddexp(x, x.square()),
    "logaddexp2": lambda x, c: torch.logaddexp2(x, c(1)),
    "addcmul": lambda x, c: torch.addcmul(x, x, c(1), value=0.5),
    "addcdiv": lambda x, c: torch.addcdiv(x, x, positive(x)),
    "lerp": lambda x, c: torch.lerp(x, x.sin(), 0.3),
    "lerp by itself": lambda x, c: torch.lerp(x, c(1), torch.sigmoid(x)),
    "quotient": lambda x, c: c(1) / positive(x),
    "product": lambda x, c: x * x.cos(),
    "from a number": lambda x, c: 1.5 - x,
    "mvlgamma": lambda x, c: torch.mvlgamma(positive(x) + 1, 2),
    "complex modulus": lambda x, c: torch.complex(x.double(), positive(x).double()).abs().to(x.dtype),
    "roots of unity": lambda x, c: torch.exp(1j * x.to(torch.complex128)).real.to(x.dtype),
}
KINKED = {
    "relu": lambda x, c: torch.relu(x),
    "relu6": lambda x, c: F.relu6(x),
    "leaky_relu": lambda x, c: F.leaky_relu(x, 0.2),
    "prelu": lambda x, c: F.prelu(x.reshape(1, -1), c(1)).reshape(x.shape),
    "rrelu in evaluation": lambda x, c: F.rrelu(x, 0.1, 0.3),
    "abs": lambda x, c: x.abs(),
    "hardtanh": lambda x, c: F.hardtanh(x),
    "hardsigmoid": lambda x, c: F.hardsigmoid(x),
    "hardswish": lambda x, c: F.hardswish(x),
    "hardshrink": lambda x, c: F.hardshrink(x, 0.3),
    "softshrink": lambda x, c: F.softshrink(x, 0.3),
    "threshold": lambda x, c: F.threshold(x, 0.1, 0.05),
    "clamp": lambda x, c: x.clamp(-0.7, 0.8) * x,
    "where": lambda x, c: torch.where(x > 0.1, x.sin(), x * 2),
    "masked_fill": lambda x, c: x.square().masked_fill(x < 0, 0.3),
    "maximum": lambda x, c: torch.maximum(x, x.square()),
    "minimum": lambda x, c: torch.minimum(x.sin(), c(1)),
    "fmod": lambda x, c: torch.fmod(x, 0.7) * x,
    "remainder": lambda x, c: torch.remainder(x, 0.9).square(),
    "frac": lambda x, c: x.frac() * x,
    "rounding": lambda x, c: x * x.round(),
    "sign": lambda x, c: x * x.sign() + x,
    "nan_to_num": lambda x, c: torch.nan_to_num(x.square()),
    "copysign": lambda x, c: torch.copysign(positive(x), x),
    "glu": lambda x, c: F.glu(torch.cat([x.reshape(-1), x.reshape(-1).sin()])),
}
REDUCTIONS = {
    "sum": lambda x, c: x.sum(-1) if x.dim() else x,
    "mean": lambda x, c: x.square().mean(),
    "prod": lambda x, c: (1 + 0.3 * x).prod(),
    "var": lambda x, c: x.reshape(-1).var(unbiased=False),
    "std": lambda x, c: torch.cat([x.reshape(-1), c(2)]).std(),
    "norm": lambda x, c: torch.cat([x.reshape(-1), c(1)]).norm(),
    "norm, p=1": lambda x, c: torch.linalg.vector_norm(x, 1) * x,
    "norm, p=3": lambda x, c: torch.linalg.vector_norm(torch.cat([x.reshape(-1), c(1)]), 3),
    "norm, p=inf": lambda x, c: x.abs().amax() * x,
    "amax": lambda x, c: x.square().amax(),
    "max along": lambda x, c: torch.cat([x.reshape(1, -1), c(1, x.numel())]).max(0).values.square(),
    "median": lambda x, c: torch.cat([x.reshape(-1).sin(), c(4)]).median(),
    "topk": lambda x, c: torch.cat([x.reshape(-1), c(3)]).topk(3).values.square(),
    "sort": lambda x, c: x.reshape(-1).sort().values * c(x.numel()),
    "logsumexp": lambda x, c: torch.logsumexp(x.reshape(-1), 0),
    "softmax": lambda x, c: torch.softmax(2 * x.reshape(-1), 0),
    "log_softmax": lambda x, c: F.log_softmax(x.reshape(-1), 0),
    "softmin": lambda x, c: F.softmin(x.reshape(-1), 0),
    "normalize": lambda x, c: F.normalize(torch.cat([x.reshape(1, -1), c(1, 1)], 1)),
    "cosine_similarity": lambda x, c: F.cosine_similarity(1 + x.reshape(1, -1), c(1, x.numel()) + 2),
    "dist": lambda x, c: torch.dist(torch.cat([x.reshape(-1), c(1)]), c(x.numel() + 1)),
    "renorm": lambda x, c: torch.renorm(1 + x.reshape(1, -1), 2, 0, 0.7),
    "trapezoid": lambda x, c: torch.trapezoid(torch.cat([x.reshape(-1), c(2)]).square()),
    "cov": lambda x, c: torch.cov(torch.stack([x.reshape(-1), x.reshape(-1).sin()]), correction=0),
    "corrcoef": lambda x, c: torch.corrcoef(c(2, 5) + F.pad(x.reshape(-1)[:5], (0, 5))[:5].sin()),
    "cumsum": lambda x, c: x.reshape(-1).cumsum(0).sin(),
    "cumprod": lambda x, c: (1 + 0.3 * x.reshape(-1)).cumprod(0),
    "logcumsumexp": lambda x, c: torch.logcumsumexp(x.reshape(-1), 0),
    "cummax": lambda x, c: x.reshape(-1).cummax(0).values.square(),
    "diff": lambda x, c: torch.cat([x.reshape(-1), c(2)]).square().diff(),
    "cumulative_trapezoid": lambda x, c: torch.cumulative_trapezoid(torch.cat([x.reshape(-1), c(2)]).square()),
}


def of_labels(loss):
    """A loss of four scores for each of two labels."""
    return lambda x, c: loss(c(2, 4) + x.reshape(-1)[:1] * c(2, 4) + x.sum().sin(), torch.tensor([0, 3]))


def of_targets(loss, prediction=lambda x: x):
    return lambda x, c: loss(prediction(x), prediction(c(*x.shape)))


LOSSES = {
    "mse_loss": of_targets(F.mse_loss),
    "l1_loss": lambda x, c: F.l1_loss(x.square(), c(*x.shape)),
    "smooth_l1_loss": of_targets(F.smooth_l1_loss),
    "huber_loss": of_targets(lambda x, y: F.huber_loss(x, y, delta=0.7)),
    "binary_cross_entropy": of_targets(F.binary_cross_entropy, share),
    "with logits": lambda x, c: F.binary_cross_entropy_with_logits(x, share(c(*x.shape))),
    "cross_entropy": of_labels(F.cross_entropy),
    "smoothed cross_entropy": of_labels(lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1)),
    "nll_loss": of_labels(lambda x, y: F.nll_loss(F.log_softmax(x, 1), y)),
    "multi_margin_loss": of_labels(F.multi_margin_loss),
    "kl_div": lambda x, c: F.kl_div(F.logsigmoid(x), share(c(*x.shape)), reduction="sum"),
    "poisson_nll_loss": lambda x, c: F.poisson_nll_loss(inside(x), positive(c(*x.shape))),
    "gaussian_nll_loss": lambda x, c: F.gaussian_nll_loss(x, c(*x.shape), positive(x)),
    "soft_margin_loss": lambda x, c: F.soft_margin_loss(x, c(*x.shape).sign()),
    "hinge_embedding_loss": lambda x, c: F.hinge_embedding_loss(x.square(), c(*x.shape).sign()),
    "triplet_margin_loss": lambda x, c: F.triplet_margin_loss(
        x.reshape(1, -1), c(1, x.numel()), c(1, x.numel()), margin=9.0
    ),
    "cosine_embedding_loss": lambda x, c: F.cosine_embedding_loss(2 + x.reshape(1, -1), c(1, x.numel()), torch.ones(1)),
    "margin_ranking_loss": lambda x, c: F.margin_ranking_loss(x.square(), c(*x.shape), torch.ones(1), margin=0.5),
    "multilabel_soft_margin_loss": lambda x, c: F.multilabel_soft_margin_loss(
        x.reshape(1, -1), (c(1, x.numel()) > 0).to(x.dtype)
    ),
}
