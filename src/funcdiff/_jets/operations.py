"""The kind of each torch operation by name; an operation that is not named here or in `layers` has no rule.

Left out on purpose is what torch 2.13's nested forward mode gets wrong: householder_product, scatter_reduce and others.
What has a plain form in `layers`, `linear_algebra` and `cumulative` is differentiated as that form.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcdiff._jets import rules
from funcdiff._jets.jet import RULES, Jet, NoRuleError, Rule, apply, carry, close, on, overwrite, plain, read_out
from funcdiff._jets.rules import aligned
from funcdiff._torch.functions import NAMESPACES
from funcdiff._torch.trees import tree_leaves

FORMS: dict[Any, Rule] = {}
TWICE: set[Any] = set()  # those among them of which plain autograd's second derivatives are right


def rule(names: str) -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of these names in all of torch's namespaces, and of their in-place forms."""

    def decorate(body: Rule) -> Rule:
        for name in names.split():
            for space in (torch.Tensor,) if name.startswith("__") else NAMESPACES:
                func = getattr(space, name, None)
                if callable(func):
                    RULES[func] = body
                    in_place = f"__i{name[2:]}" if name.startswith("__") else f"{name}_"
                    if hasattr(space, in_place):
                        RULES[getattr(space, in_place)] = _overwriting(func, body)
        return body

    return decorate


def named(names: str) -> list[Any]:
    """The functions of these names in all of torch's namespaces."""
    found = (getattr(space, name, None) for name in names.split() for space in NAMESPACES)
    return [func for func in found if callable(func)]


def form(*funcs: Any, twice: bool = False) -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of these, and what torch's own modes are to differentiate in their place.

    Args:
        *funcs: Functions that torch differentiates twice wrong, or not at all.
        twice: Whether plain autograd differentiates the function twice correctly. The third derivative is wrong.
    """

    def decorate(body: Rule) -> Rule:
        for func in funcs:
            RULES[func] = FORMS[func] = body
        TWICE.update(funcs if twice else ())
        return body

    return decorate


def unaltered(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation itself, where a form does not cover its options."""
    if any(isinstance(leaf, Jet) for leaf in tree_leaves((args, kwargs))):
        raise NoRuleError(f"{func.__name__} with these options")
    return func(*args, **kwargs)


def in_single(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a tensor, of half precision computed in float32 and rounded at its end, as torch's own does it."""

    def run(x: Any, *rest: Any) -> Any:
        dtype = plain(x).dtype
        if dtype not in (torch.float16, torch.bfloat16):
            return compute(x, *rest)
        return on(torch.Tensor.to, compute(on(torch.Tensor.float, x), *rest), dtype)

    return run


def _overwriting(func: Callable[..., Any], body: Rule) -> Rule:
    return lambda _, args, kwargs: overwrite(args[0], body(func, args, kwargs))


def _closed(kind: Callable[[Callable[..., Any], list[Jet]], Any]) -> Rule:
    return lambda func, args, kwargs: kind(*close(func, args, kwargs))


rule(
    """eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__ greater greater_equal less less_equal not_equal equal
    allclose isclose isnan isinf isfinite isposinf isneginf signbit sign sgn floor ceil round trunc fix floor_divide
    __floordiv__ argmax argmin argsort any all count_nonzero nonzero argwhere logical_not logical_and logical_or
    logical_xor searchsorted bucketize zeros_like ones_like empty_like new_zeros new_ones new_empty int long bool short
    byte size dim ndimension numel nelement is_floating_point is_complex is_contiguous element_size stride is_tensor
    result_type can_cast get_device __len__ __bool__ __int__"""
)(_closed(rules.constant))
rule(
    """clone contiguous reshape expand broadcast_to permute transpose t swapaxes swapdims
    movedim moveaxis adjoint unsqueeze squeeze flatten ravel unflatten chunk split split_with_sizes
    tensor_split hsplit vsplit dsplit unbind select narrow __getitem__ index_select gather take_along_dim take diagonal
    diag diag_embed tril triu flip fliplr flipud roll rot90 repeat tile repeat_interleave sum mean cumsum neg negative
    __neg__ positive __pos__ trace unfold fold pixel_shuffle pixel_unshuffle channel_shuffle avg_pool1d avg_pool2d
    avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate type float double half
    real resolve_conj resolve_neg conj conj_physical diagflat sum_to_size"""
)(_closed(rules.linear))
rule(
    """cat concat concatenate stack hstack vstack dstack column_stack row_stack where masked_fill index_fill index_add
    index_copy scatter scatter_add slice_scatter diagonal_scatter pad constant_pad_nd block_diag
    max min amax amin aminmax maximum minimum fmax fmin sort topk kthvalue median nanmedian msort cummax cummin
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d l1_loss nansum index_put put diff"""
)(_closed(rules.affine))
rule("broadcast_tensors meshgrid atleast_1d atleast_2d atleast_3d")(_closed(rules.view))
rule(
    """relu relu6 abs absolute __abs__ hardtanh leaky_relu threshold hardshrink softshrink clamp clip clamp_min
    clamp_max hardsigmoid frac deg2rad rad2deg copysign fmod remainder __mod__"""
)(_closed(rules.piecewise_linear))
rule(
    """exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos atan arcsin arccos arctan
    sinh cosh tanh asinh acosh atanh arcsinh arccosh arctanh sigmoid expit logit elu celu selu gelu silu mish softplus
    logsigmoid softsign tanhshrink hardswish erf erfc erfinv lgamma gammaln digamma psi polygamma i0 i0e i1 i1e
    ndtr log_ndtr ndtri entr xlogy xlog1py pow __pow__ __rpow__ float_power atan2 arctan2 hypot ldexp mvlgamma
    multigammaln erfcx"""
)(_closed(rules.elementwise))
rule("__rmatmul__ bmm dot inner outer ger vdot kron tensordot einsum cross vecdot")(_closed(rules.bilinear))
rule(
    """softmax log_softmax softmin logsumexp var std var_mean std_mean norm vector_norm
    matrix_norm matrix_exp matrix_power smooth_l1_loss huber_loss binary_cross_entropy
    binary_cross_entropy_with_logits kl_div nll_loss cross_entropy poisson_nll_loss gaussian_nll_loss
    cov corrcoef lerp addcmul addcdiv dist renorm trapezoid
    trapz chain_matmul multi_dot cumulative_trapezoid"""
)(_closed(rules.smooth))
rule("item tolist numpy __float__ __array__")(read_out)


@rule("detach")
def _detach(func: Any, args: Any, kwargs: Any) -> Any:
    args[0].shared = True
    return func(args[0].value)


@rule("to type_as view_as reshape_as expand_as")
def _shaped_as(func: Any, args: Any, kwargs: Any) -> Any:
    """The other tensor gives a shape or a dtype, and nothing of its derivative."""
    x, *others = args
    others, kwargs = map(plain, others), {key: plain(value) for key, value in kwargs.items()}
    return rules.linear(*close(func, (x, *others), kwargs)) if isinstance(x, Jet) else func(x, *others, **kwargs)


@rule("view")
def _view(func: Any, args: Any, kwargs: Any) -> Any:
    if any(isinstance(arg, torch.dtype) for arg in args):
        raise NoRuleError("view of the bits as another dtype")
    return rules.linear(*close(func, args, kwargs))


@rule("__setitem__")
def _setitem(func: Any, args: Any, kwargs: Any) -> None:
    def assigned(target: torch.Tensor, index: Any, source: Any) -> torch.Tensor:
        result = target.clone()
        result[index] = source
        return result

    overwrite(args[0], rules.affine(*close(assigned, args, kwargs)))


@form(*named("nan_to_num"))
@rule("nan_to_num")
def _nan_to_num(func: Any, args: Any, kwargs: Any) -> Any:
    """What is replaced has no derivative: torch multiplies the infinite one that it had by zero, which is NaN."""

    def nan_to_num(
        input: Any, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
    ) -> Any:
        value, limits = plain(input), torch.finfo(input.dtype)
        result = on(torch.masked_fill, input, value.isnan(), nan or 0.0)
        result = on(torch.masked_fill, result, value.isposinf(), limits.max if posinf is None else posinf)
        return on(torch.masked_fill, result, value.isneginf(), limits.min if neginf is None else neginf)

    return nan_to_num(*args, **kwargs) if plain(args[0]).is_floating_point() else func(*args, **kwargs)


def _sum(value: torch.Tensor, *terms: tuple[Any, Callable[[torch.Tensor], torch.Tensor]]) -> Any:
    """The jet of a sum of elementwise linear maps, each given with its argument; plain arguments have no derivative."""
    maps = [mapping for x, mapping in terms if isinstance(x, Jet)]

    def differential(*stacks: torch.Tensor) -> torch.Tensor:
        parts = [mapping(aligned(stack, value)) for stack, mapping in zip(stacks, maps, strict=True)]
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return total.expand(total.shape[0], *value.shape)

    return carry([x for x, _ in terms if isinstance(x, Jet)], value, differential)


@rule("add __add__ __radd__")
def _add(func: Any, args: Any, kwargs: Any) -> Any:
    (x, y), alpha = args, kwargs.get("alpha", 1)
    return _sum(plain(x) + alpha * plain(y), (x, lambda t: t), (y, lambda t: t if alpha == 1 else alpha * t))


@rule("sub subtract __sub__")
def _sub(func: Any, args: Any, kwargs: Any) -> Any:
    (x, y), alpha = args, kwargs.get("alpha", 1)
    return _sum(plain(x) - alpha * plain(y), (x, lambda t: t), (y, lambda t: -alpha * t))


@rule("rsub __rsub__")
def _rsub(func: Any, args: Any, kwargs: Any) -> Any:
    return _sub(func, args[::-1], kwargs)


@rule("mul multiply __mul__ __rmul__")
def _mul(func: Any, args: Any, kwargs: Any) -> Any:
    x, y = args
    if x is y:
        return apply(torch.square, (x,), {})
    value = plain(x) * plain(y)
    if not isinstance(x, Jet) or not isinstance(y, Jet):
        return _sum(value, (x, lambda t: t * y), (y, lambda t: x * t))
    return carry(
        [x, y],
        value,
        lambda s, t: aligned(s, value) * y.value + x.value * aligned(t, value),
        lambda a, b: aligned(a[0], value) * aligned(b[1], value) + aligned(b[0], value) * aligned(a[1], value),
    )


@rule("div divide true_divide __truediv__")
def _div(func: Any, args: Any, kwargs: Any) -> Any:
    x, y = args
    if kwargs.get("rounding_mode") is not None:
        return func(plain(x), plain(y), **kwargs)
    if isinstance(y, Jet):
        return y.reciprocal() * x
    return _sum(x.value / y, (x, lambda t: t / y))


@rule("__rtruediv__ __rdiv__")
def _rdiv(func: Any, args: Any, kwargs: Any) -> Any:
    x, y = args
    return x.reciprocal() * y


def _power(func: Any, args: Any, kwargs: Any) -> Any:
    """A real number to a complex power: of that, torch's forward mode drops a part."""
    if kwargs or len(args) != 2:
        return func(*args, **kwargs)
    base, exponent = reversed(args) if func is torch.Tensor.__rpow__ else args
    if not _is_complex(exponent) or _is_complex(base):
        return func(*args)
    dtype = torch.result_type(base, exponent)
    base = base.to(dtype) if isinstance(base, Tensor) else exponent.new_full((), base, dtype=dtype)
    return torch.exp(exponent * torch.log(base))


def _is_complex(x: Any) -> bool:
    return x.is_complex() if isinstance(x, Tensor) else isinstance(x, complex)


_POWERS = (*named("pow float_power"), torch.Tensor.__pow__, torch.Tensor.__rpow__)
FORMS.update(dict.fromkeys(_POWERS, _power))
