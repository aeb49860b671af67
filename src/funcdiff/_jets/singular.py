"""Points where an operation has a first derivative by torch's convention, and no second one.

NOTE [no second derivative]. The norm at zero has the gradient 0 in torch. Torch's forward mode then calls its second
derivative 0 as well, which it is only along directions that leave the norm zero, such as those of the distance of a
point to itself. Along all others it is not finite, and these rules say so. They say NaN in Taylor mode. Torch's modes
are given a term to add that is zero, as its gradient is, and whose second derivative overflows.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from funcdiff._jets.jet import RULES, Jet, jet_of, on, plain
from funcdiff._jets.operations import FORMS, TWICE, named
from funcdiff._torch.compiler import named_after

_second: ContextVar[bool] = ContextVar("_second", default=True)


def once(func: Callable[..., Any]) -> Callable[..., Any]:
    """`func`, to be differentiated once: forward mode would multiply what overflows by zero."""
    if torch.compiler.is_compiling():
        return func

    @named_after(func)
    def run(*args: Any) -> Any:
        token = _second.set(False)
        try:
            return func(*args)
        finally:
            _second.reset(token)

    return run


def without_second(y: Any, moved: Any, at: Tensor) -> Any:
    """`y` (*S), whose second derivatives are not finite at the places `at` (*S) where `moved` (*S, k) moves."""
    y, moved = jet_of(y), jet_of(moved)
    if not isinstance(moved, Jet):
        return (
            y
            if isinstance(y, Jet) or (not torch.compiler.is_compiling() and not _second.get())
            else y + _overflowing(moved, at)
        )
    pairs = moved.pairs
    if not pairs.curved:
        return y
    moves: Tensor = pairs.bend(lambda a, b: a[0] & b[0], [moved.first.any(-1)])[0] != 0
    if moved.second is not None:
        moves = moves | moved.second.any(-1)
    second = y.value.new_zeros(moves.shape) if y.second is None else y.second
    # A factor, as the derivatives of a number that is filled in are zero.
    return Jet(y.value, y.first, second * torch.ones_like(second).masked_fill(at & moves, float("nan")), pairs)


def _overflowing(x: Tensor, at: Tensor) -> Tensor:
    """Zero, with a second derivative along w that is infinite at the places `at` unless w is zero there."""
    large: float = torch.finfo(x.dtype).max ** 0.75  # a direction times this is finite, and times its square is not
    there: Tensor = x.masked_fill(~at.unsqueeze(-1), 0.0)
    return (there * large * large).square().sum(-1)


_POWER = RULES[torch.pow]


def _power(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """At a base of zero with an exponent that moves, torch's forward mode leaves out the infinite logarithm."""
    if kwargs or len(args) != 2:
        return _POWER(func, args, kwargs)
    base, exponent = map(jet_of, reversed(args) if func is torch.Tensor.__rpow__ else args)
    if not isinstance(exponent, Jet):
        return _POWER(func, args, kwargs)
    power = _with_zeroth_powers(func, args, kwargs, _POWER, base, exponent)
    return _not_at_zero(power, base, exponent, smooth_from=1 if isinstance(base, Jet) else 0)


def _not_at_zero(power: Any, base: Any, exponent: Any, smooth_from: float) -> Any:
    """`power` without second derivatives where it is of zero, with an exponent that is not beyond `smooth_from`."""
    at = ((plain(base) == 0) & (plain(exponent) <= smooth_from)).expand(power.shape)
    return without_second(power, exponent.expand(power.shape).unsqueeze(-1), at)


def _real_power(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The same in torch's own modes, which cannot be asked whether the exponent moves."""
    power = _COMPLEX_POWER(func, args, kwargs)
    if kwargs or len(args) != 2 or power.is_complex() or not power.is_floating_point():
        return power
    base, exponent = reversed(args) if func is torch.Tensor.__rpow__ else args
    if not isinstance(exponent, Tensor) or not (isinstance(base, Tensor) or base == 0):
        return power
    power = _with_zeroth_powers(func, args, kwargs, _COMPLEX_POWER, base, exponent)
    return _not_at_zero(power, base, exponent.to(power.dtype), smooth_from=1)


def _with_zeroth_powers(
    func: Callable[..., Any], args: Any, kwargs: Any, power: Callable[..., Any], base: Any, exponent: Any
) -> Any:
    """The power, by its logarithm where the exponent is 0: torch's slope by the base is a constant 0 there."""
    if not all(isinstance(x, Tensor) and x.is_floating_point() for x in (plain(base), plain(exponent))):
        return power(func, args, kwargs)
    base, exponent = on(torch.broadcast_tensors, base, exponent)
    zeroth = (plain(exponent) == 0) & (plain(base) > 0)
    logarithm = on(torch.log, on(torch.masked_fill, base, ~zeroth, 1.0))
    func = torch.pow if func is torch.Tensor.__rpow__ else func  # base first
    apart = power(func, (base, on(torch.masked_fill, exponent, zeroth, 1.0)), {})
    return on(torch.where, zeroth, on(torch.exp, on(torch.mul, exponent, logarithm)).to(apart.dtype), apart)


_COMPLEX_POWER = FORMS[torch.pow]
_POWERS = [func for func, form in FORMS.items() if form is _COMPLEX_POWER]
RULES.update(dict.fromkeys(_POWERS, _power))
FORMS.update(dict.fromkeys(_POWERS, _real_power))


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]


def _angle_of_two(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    angle: Tensor = func(*args, **kwargs)
    y, x = (arg.to(angle.dtype).expand(angle.shape) for arg in _tensors(args, kwargs))
    return without_second(angle, torch.stack([y, x], -1), (y == 0) & (x == 0))


def _of_complex(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    result, (z, *_) = func(*args, **kwargs), _tensors(args, kwargs)
    return without_second(result, torch.view_as_real(z), z == 0) if z.is_complex() else result


_TWO = named("atan2 arctan2")
FORMS.update(dict.fromkeys(_TWO, _angle_of_two))
TWICE.update(_TWO)
FORMS.update(dict.fromkeys([*named("abs absolute angle sgn"), torch.Tensor.__abs__], _of_complex))
