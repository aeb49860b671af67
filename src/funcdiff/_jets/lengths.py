"""Powers of norms: twice differentiable at zero, where the norm is not.

NOTE [lengths]. The power k of a norm grows like the k-th power of the distance. Beyond k = 2 it has the first and the
second derivative 0 at zero, whatever the norm; the square of the Euclidean norm is a sum of squares. The chain rule
multiplies zero by infinity there.
"""

from typing import Any

import torch

from funcdiff._jets import singular as singular  # first: these rules stand before its rules of powers
from funcdiff._jets.jet import RULES, Jet, jet_of, on
from funcdiff._jets.operations import named


def _power(func: Any, args: Any, kwargs: Any) -> Any:
    base, *rest = args
    k = 2 if func in _SQUARES else rest[0] if len(rest) == 1 else None
    vector = base.vector if isinstance(base, Jet) else None
    if vector is None or kwargs or not isinstance(k, (int, float)) or k < 2:
        return _GENERAL[func](func, args, kwargs)
    difference, p = vector
    if k == p == 2:
        return on(torch.sum, on(torch.square, difference), -1)
    power = jet_of(_GENERAL[func](func, args, kwargs))
    if k > 2 and power.second is not None:
        power.second = power.second.masked_fill(base.value == 0, 0.0)
    return power


_SQUARES = named("square")
_GENERAL = {func: RULES[func] for func in (*_SQUARES, *named("pow float_power"), torch.Tensor.__pow__)}
RULES.update(dict.fromkeys(_GENERAL, _power))
