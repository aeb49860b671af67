"""Second-order jets: a value, its first and its second derivatives, carried together through torch's operations.

NOTE: for ``y = h(x)``, with ``x_i`` the derivative along direction i and ``x_ij`` the second one along i and j,

    y_i = Dh[x_i],    y_ij = Dh[x_ij] + D²h[x_i, x_j].

A rule gives the value of ``h``, its differential ``Dh`` and, unless ``h`` is affine, its curvature ``D²h``; `carry`
does the rest.
Second derivatives are symmetric, so only the pairs i <= j travel; a Laplacian needs just the sum of the x_ii.

A `Jet` is no tensor, so an operation without a rule, or one that looks past the Python layer of torch, stops with an
error instead of quietly treating it as a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from funcdiff._jets.pairs import Form, Pairs
from funcdiff._torch.messages import RefusedError, refuse_here
from funcdiff._torch.tensors import without_data
from funcdiff._torch.trees import flatten, map_leaves, tree_flatten, tree_unflatten, unflatten

Rule = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
RULES: dict[Any, Rule] = {}
COMPOSITES: dict[Any, Callable[..., Any]] = {}


class NoRuleError(NotImplementedError):
    """An operation has no Taylor rule: the whole function must go another way."""


# Of `jet @ tensor` the compiler calls tensor.matmul(jet), as if the order of its factors did not matter.
TURNED = "@ under torch.compile, which may turn its factors around (torch.matmul has a rule)"
# What stops a jet on its way through a function that takes tensors: it is none, and torch's own transforms stand in.
NO_JET = (NoRuleError, RuntimeError, TypeError, AttributeError)


class Jet:
    """A tensor under differentiation: ``value`` (*S), ``first`` (n, *S), ``second`` (q, *S), or None where it is zero.

    ``shared`` says that another tensor may be a view of this one, so that it must not be changed in place. For a norm,
    ``vector`` is what it is the length of, and its p.
    """

    vector: tuple[Jet, float] | None = None

    def __init__(
        self, value: torch.Tensor, first: torch.Tensor, second: torch.Tensor | None, pairs: Pairs, shared: bool = False
    ) -> None:
        self.value, self.first, self.second, self.pairs, self.shared = value, first, second, pairs, shared

    @staticmethod
    def __torch_function__(
        func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.matmul and torch.compiler.is_dynamo_compiling() and not isinstance(args[0], Jet):
            raise NoRuleError(TURNED)
        return apply(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        member = getattr(torch.Tensor, name)
        if callable(member):
            return lambda *args, **kwargs: apply(member, (self, *args), kwargs)
        if name in ATTRIBUTES or name.startswith("is_"):
            return getattr(self.value, name)
        raise NoRuleError(name)

    @property
    def T(self) -> Any:  # noqa: N802  # as torch spells it
        return self.permute(*reversed(range(self.ndim)))

    @property
    def mT(self) -> Any:  # noqa: N802  # as torch spells it
        return self.transpose(-2, -1)

    H = T
    mH = mT  # noqa: N815  # as torch spells it

    @property
    def data(self) -> Any:
        return self.detach()

    def __iter__(self) -> Any:
        return iter(self.unbind(0))

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:  # a branch is taken by value; the derivative is that of the branch
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        read_out(float, (self,), {})

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"Jet({self.value!r})"


class TensorJet(torch.Tensor):
    """A jet in the guise of a tensor: what func sees, as modules and `torch.func.functional_call` insist on tensors.

    It has no data: what reaches it below the Python layer of torch, say from a transform inside func, has no rule.
    """

    jet: Jet

    @staticmethod
    def __new__(cls, jet: Jet) -> TensorJet:
        disguised = without_data(cls, jet.value)
        disguised.jet = jet
        return disguised

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.__name__ == "__get__":  # an attribute
            return getattr(args[0].jet, func.__self__.__name__)  # type: ignore[attr-defined]  # a method of a descriptor
        if func is torch.Tensor.__iter__:
            return iter(args[0].jet)
        return apply(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any, kwargs: Any = None) -> Any:  # type: ignore[override]  # torch's stub takes it for an instance's method
        raise NoRuleError(f"{func.__name__} inside another transform")


_EITHER = (Jet, TensorJet)


def jet_of(x: Any) -> Any:
    """The jet behind the guise; anything else as it is."""
    return x.jet if type(x) is TensorJet else x


def disguise(x: Any) -> Any:
    """A jet as func is to see it; the compiler traces plain classes better than tensors without data."""
    return TensorJet(x) if isinstance(x, Jet) and not torch.compiler.is_compiling() else x


def plain(x: Any) -> Any:
    """The value of a jet; anything else as it is."""
    x = jet_of(x)
    return x.value if isinstance(x, Jet) else x


ATTRIBUTES = frozenset(("shape", "dtype", "device", "ndim", "layout", "requires_grad", "names", "itemsize", "nbytes"))


def _operator(func: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: apply(func, args, {})


def _reflected(func: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: apply(func, (y, x), {})


for _stem, _name in {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "matmul": "matmul",
}.items():
    setattr(Jet, f"__{_stem}__", _operator(getattr(torch, _name)))
    setattr(Jet, f"__r{_stem}__", _reflected(getattr(torch, _name)))
    if _name != "matmul":
        setattr(Jet, f"__i{_stem}__", _operator(getattr(torch.Tensor, f"{_name}_")))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "abs"):
    setattr(Jet, f"__{_name}__", _operator(getattr(torch, _name)))
for _name in ("__getitem__", "__setitem__"):
    setattr(Jet, _name, _operator(getattr(torch.Tensor, _name)))


def apply(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carry the jets among the arguments through one torch function."""
    kwargs = {key: jet_of(arg) for key, arg in kwargs.items()}
    args = by_position(func, tuple(jet_of(arg) for arg in args), kwargs)
    rule = RULES.get(func)
    if rule is None and func in COMPOSITES and not torch.compiler.is_compiling():
        return COMPOSITES[func](*args, **kwargs)
    if rule is None or kwargs.get("out") is not None:
        raise NoRuleError(getattr(func, "__name__", func))
    try:
        if kwargs.get("inplace"):
            result = overwrite(args[0], rule(func, args, {**kwargs, "inplace": False}))
        else:
            result = rule(func, args, kwargs)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:  # of the rule: on tensors the call works
        raise NoRuleError(f"{getattr(func, '__name__', func)} with these arguments") from error
    return disguise(result) if isinstance(result, Jet) else map_leaves(disguise, result)


def by_position(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments, with those that rules look for by position taken out of `kwargs`, as of ``pow(input=x, ...)``."""
    if getattr(func, "__name__", "") in _OTHERS_FIRST:
        return args
    if not args and "input" in kwargs:
        args = (kwargs.pop("input"),)
    for name in _SECOND:
        if len(args) == 1 and "input" not in kwargs and name in kwargs:
            args = (*args, kwargs.pop(name))
    return args


_SECOND = ("other", "exponent")
_OTHERS_FIRST = frozenset(("where", "polygamma", "searchsorted"))  # functions whose first argument is not the input


def on(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Apply ``func`` to arguments of which some may be jets."""
    leaves = (leaf for arg in args for leaf in (arg if isinstance(arg, (list, tuple)) else (arg,)))
    return apply(func, args, kwargs) if any(isinstance(leaf, _EITHER) for leaf in leaves) else func(*args, **kwargs)


def overwrite(target: Any, result: Any) -> Any:
    """Change a jet in place, where no other tensor can see it."""
    result = jet_of(result)
    if not isinstance(target, Jet) or not isinstance(result, Jet) or target.shared:
        raise NoRuleError("in-place operation on a tensor that has views or no derivative yet")
    if result.value.shape != target.value.shape or result.value.dtype != target.value.dtype:
        raise NoRuleError("in-place operation that changes shape or dtype")
    target.value, target.first, target.second = result.value, result.first, result.second
    target.vector = result.vector
    return target


def read_out(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
    """Refuse to turn a tensor under differentiation into a Python number or an array."""
    lost = f"{func.__name__}() converts a tensor that is differentiated to"
    if func.__name__ in ("numpy", "__array__"):
        raise RefusedError(
            f"{lost} an array, which carries no derivative. Use torch's functions, or write a torch.autograd.Function. "
            "If you mean a constant, call .detach() first and pass verify=False"
        )
    raise RefusedError(
        f"{lost} a Python number, which carries no derivative. Keep it a tensor. If you mean a constant, call "
        ".detach() first"
    )


def check_grad_mode(enabled: bool) -> None:
    """Refuse an operation under no_grad() in a function that was called with gradients enabled."""
    if enabled and not torch.is_grad_enabled():
        refuse_here(
            "func computes under torch.no_grad(). Reverse mode treats the result as a constant, and forward mode "
            "ignores no_grad. If you mean a constant, use .detach(); if not, remove no_grad()"
        )


def close(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], list[Jet]]:
    """Split a call into ``h``, a function of plain tensors only, and the jets it is applied to."""
    leaves, spec = tree_flatten((args, kwargs))
    leaves = [jet_of(leaf) for leaf in leaves]
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Jet)]
    jets = [leaves[place] for place in places]
    check_grad_mode(jets[0].pairs.grad_enabled)

    def h(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        args, kwargs = tree_unflatten(filled, spec)
        return func(*args, **kwargs)

    return h, jets


def carry(
    jets: Sequence[Jet],
    value: Any,
    differential: Callable[..., Any],
    curvature: Form | None = None,
    shared: bool = False,
) -> Any:
    """The jets of ``y = h(x)`` (see the note above): ``value`` with each floating-point tensor in it made a jet.

    Args:
        jets: the arguments of ``h``.
        value: ``h`` of their values, a tensor or a pytree.
        differential: stacks (k, ...) of one tangent for each jet -> stacks of the floating-point outputs' tangents.
        curvature: two such lists of stacks -> stacks of the second differential along them; None for affine ``h``.
        shared: whether ``value`` may be a view of an argument.
    """
    values, spec = flatten(value)
    leaves: list[Any] = list(values)
    if any(leaf.is_complex() for leaf in leaves):
        raise NoRuleError("complex numbers")
    floating = [place for place, leaf in enumerate(leaves) if leaf.is_floating_point()]
    pairs, size = jets[0].pairs, len(floating)
    first, _ = flatten(differential(*[jet.first for jet in jets]))
    second: Sequence[Any] = [None] * size
    if any(jet.second is not None for jet in jets):
        second, _ = flatten(differential(*_seconds(jets)))
    if curvature is not None and pairs.curved:
        bends = pairs.bend(curvature, [jet.first for jet in jets])
        second = [bend if part is None else part + bend for part, bend in zip(second, bends, strict=True)]
    for place, a, b in zip(floating, first, second, strict=True):
        dtype = leaves[place].dtype
        leaves[place] = Jet(leaves[place], a.to(dtype), None if b is None else b.to(dtype), pairs, shared)
    if shared:
        for jet in jets:
            jet.shared = True
    return unflatten(leaves, spec)


def _seconds(jets: Sequence[Jet]) -> list[torch.Tensor]:
    count = next(jet.second.shape[0] for jet in jets if jet.second is not None)
    return [jet.value.new_zeros((count, *jet.value.shape)) if jet.second is None else jet.second for jet in jets]
