"""The sinc function, whose derivatives torch loses near 0: its formula divides what has cancelled by x squared."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from funcdiff._jets.jet import on, plain
from funcdiff._jets.operations import form, named

_COEFFICIENTS = [(-1) ** k / math.factorial(2 * k + 1) for k in range(11)]  # of sin(y) / y in y squared; y is below 1


@form(*named("sinc"))
def _sinc(func: Any, args: Any, kwargs: Any) -> Any:
    """Near 0 by its power series."""

    def sinc(input: Any) -> Any:
        y = on(torch.mul, input, math.pi)
        near = plain(y).abs() < 1
        square = on(torch.square, on(torch.where, near, y, torch.zeros_like(plain(y))))
        series = functools.reduce(lambda sum, c: on(torch.mul, sum, square) + c, reversed(_COEFFICIENTS), 0 * square)
        apart = on(torch.where, near, torch.ones_like(plain(y)), y)
        return on(torch.where, near, series, on(torch.sin, apart) / apart)

    return sinc(*args, **kwargs)
