"""Short scripts that show a wrong derivative with torch alone: written, run, compared."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_unflatten

from funcdiff._safety.culprits import Operation

LONGEST = 1500  # characters

_GRADIENT = "torch.autograd.grad(f(s), s, create_graph=True)[0]"
_TWICE = f"lambda s: torch.autograd.grad({_GRADIENT}.sum(), s, create_graph=True)[0]"

_TWO = "(torch.stack([{0} + 0.1, {0}]))[1]"
_HESSIANS = {
    "hessian_forward_over_reverse": "jacfwd(jacrev(f))",
    "hessian_reverse_over_reverse": "jacrev(jacrev(f))",
    "hessian_reverse_over_forward": "jacrev(jacfwd(f))",
    "hessian_forward_over_forward": "jacfwd(jacfwd(f))",
}
_PRODUCTS = {
    "hvp_forward_over_reverse": "jvp(grad(f), ({0},), (torch.ones_like({0}),))[1]",
    "hvp_reverse_over_reverse": "vjp(grad(f), {0})[1](torch.ones_like({0}))[0]",
    "vhp": "vjp(grad(f), {0})[1](torch.ones_like({0}))[0]",
    "hvp_reverse_over_forward": "grad(lambda s: jvp(f, (s,), (torch.ones_like(s),))[1])({0})",
}
_SECOND_ORDER = {
    **{name: f"{transform}({{0}})" for name, transform in _HESSIANS.items()},
    **_PRODUCTS,
    "hvp_double_backward": f"({_TWICE})({{0}}.requires_grad_())",
    "hvp_operator": f"({_TWICE})({{0}}.requires_grad_())",
}
EXPRESSIONS = {
    "jacobian_loop": "torch.autograd.functional.jacobian(f, {0})",
    "jacobian_batched_grad": "torch.autograd.functional.jacobian(f, {0}, vectorize=True)",
    "jacobian_reverse": "jacrev(f)({0})",
    "jacobian_forward": "jacfwd(f)({0})",
    "jacobian_reverse, chunk_size=1": "jacrev(f, chunk_size=1)({0})",
    "jacobian_reverse, vmap": f"vmap(jacrev(f)){_TWO}",
    "jacobian_forward, vmap": f"vmap(jacfwd(f)){_TWO}",
    **_SECOND_ORDER,
    **{f"{name}, vmap": f"vmap({transform}){_TWO}" for name, transform in _HESSIANS.items()},
    **{f"{name}, vmap": f"vmap(lambda s: {product.format('s')}){_TWO}" for name, product in _PRODUCTS.items()},
    **{f"{name}, once more": second for name, second in _SECOND_ORDER.items()},
}

_ONE = """\
import torch
from torch.func import {functions}

torch.manual_seed(0)
{inputs}
f = lambda {x}: {call}
print("expected", (f({x} + 1e-5 * d{x}) - f({x} - 1e-5 * d{x})) / 2e-5)
print("obtained", torch.tensordot({obtained}, d{x}, {axes}))
"""

_SEVERAL = """\
import torch
from torch.func import {functions}

torch.manual_seed(0)
{inputs}
f = lambda t: {call}
t, h = torch.zeros(2, dtype=torch.float64), 1e-5
print("expected", (f(t + h) - f(t - h)) / (2 * h))
print("obtained", {obtained}.sum(-1))
"""

_SECOND = """\
import torch
from torch.func import {functions}

torch.manual_seed(0)
{inputs}
f = lambda t: {call}.pow(3).sum()
t, h = torch.zeros(2, dtype=torch.float64), 1e-3
print("expected", (f(t + h) - 2 * f(t) + f(t - h)) / h**2)
print("obtained", {obtained}.sum())
"""

_THIRD = """\
import torch
from torch.func import {functions}

torch.manual_seed(0)
{inputs}
f = lambda t: {call}.pow(3).sum()
t, h = torch.zeros(2, dtype=torch.float64).requires_grad_(), 1e-4
second = lambda t: torch.autograd.functional.hessian(f, t).sum()
print("expected", (second(t + h) - second(t - h)) / (2 * h))
print("obtained", torch.autograd.grad({obtained}.sum(), t)[0].sum())
"""


class _Name(str):
    """Prints as itself, where a repr of the arguments is written into a script."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def printed(script: str) -> tuple[Tensor, Tensor]:
    """What `script` prints as expected and obtained."""
    found: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(script, {"print": found.__setitem__})
    return found["expected"].detach(), found["obtained"].detach()


def numbers(script: str) -> tuple[Tensor, Tensor] | None:
    """What `script` prints; None if it fails, or expects what is not finite."""
    try:
        expected, obtained = printed(script)
    except Exception:
        return None
    return (expected, obtained) if expected.isfinite().all() and obtained.shape == expected.shape else None


def worst(expected: Tensor, obtained: Tensor) -> dict[str, str]:
    """The two numbers that lie furthest apart."""
    pair = expected.flatten(), obtained.flatten()
    place = (pair[0] - pair[1]).nan_to_num(torch.inf).abs().argmax()
    return {name: f"{x[place]:.5g}" for name, x in zip(("expected", "obtained"), pair, strict=True)}


def outcome(script: str) -> dict[str, str]:
    """The verdict of this torch on a script, with the numbers that it prints or its error."""
    try:
        expected, obtained = printed(script)
    except Exception as error:
        return {"outcome": "refuses", "text": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
    return {"outcome": "wrong" if differ(expected, obtained) else "right", **worst(expected, obtained)}


def differ(expected: Tensor, obtained: Tensor) -> bool:
    """By more than differences can be off."""
    return not torch.allclose(expected, obtained, rtol=0, atol=1e-2 * float(expected.abs().max()) + 1e-6)


def imported(expression: str) -> str:
    """The functions of torch.func that an expression of `EXPRESSIONS` calls, as an import names them."""
    names = [name for name in ("grad", "jacfwd", "jacrev", "jvp", "vjp", "vmap") if f"{name}(" in expression]
    return ", ".join(names) or "jacrev"


def writers(operation: Operation) -> Iterator[Callable[[str], str]]:
    """Writers of scripts, the simplest first: random inputs, then the values found; one argument, then all."""
    everything = tuple(operation.tangents)
    sources = ("randn", "rand", "wide", "triangular", "definite", "literal")
    for result, source, moved in itertools.product(_results(operation), sources, [*everything, None]):
        yield partial(_write, operation, source, everything if moved is None else (moved,), moved is None, result)


def _results(operation: Operation) -> list[str]:
    """How to take a finite tensor from what the operation returns."""
    args, kwargs = tree_unflatten(operation.leaves, operation.tree)
    returned = operation.call(*args, **kwargs)
    if isinstance(returned, Tensor):
        return ["" if returned.isfinite().all() else ".nan_to_num(0, 0, 0)"]
    return [f"[{i}]" for i, y in enumerate(returned) if isinstance(y, Tensor) and y.is_floating_point()]


def _write(operation: Operation, source: str, moved: tuple[int, ...], several: bool, result: str, mode: str) -> str:
    """One script: of the argument that moves, or of a point in a plane in which arguments move."""
    second = not mode.startswith("jacobian")
    letters = dict(zip(operation.tangents, "xyzwuvabc", strict=False))
    leaves, inputs = list(operation.leaves), []
    for i, letter in letters.items():
        names, drawn = [letter], [_drawn(leaves[i], source)]
        if i in moved:
            plane = operation.tangents[i][[0, -1]]
            names.append(f"d{letter}")
            drawn.append(f"{_drawn(plane, source)}.movedim(0, -1)" if several or second else _drawn(plane[0], source))
        inputs.append(f"{', '.join(names)} = {', '.join(drawn)}")
        leaves[i] = _Name(letter)
        if i in moved and second:  # not along straight lines alone: a fault may lie in how second tangents pass
            leaves[i] = _Name(f"{letter} + d{letter} @ (t + t**2)")
        elif i in moved and several:
            leaves[i] = _Name(f"{letter} + d{letter} @ t")
    args, kwargs = tree_unflatten([_spelt(leaf) for leaf in leaves], operation.tree)
    written = ", ".join([*(repr(x) for x in args), *(f"{k}={v!r}" for k, v in _needed(operation, kwargs).items())])
    x = letters[moved[0]]
    obtained = EXPRESSIONS[mode].format("t" if several or second else x)
    second_or_third = _THIRD if mode.endswith("once more") else _SECOND
    template = second_or_third if second else _SEVERAL if several else _ONE
    return template.format(
        functions=imported(obtained),
        inputs="\n".join(inputs),
        x=x,
        call=f"{operation.name}({written}){result}",
        obtained=obtained,
        axes=operation.leaves[moved[0]].dim(),
    )


def _needed(operation: Operation, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments without those that say what is so anyway."""
    try:
        usual = inspect.signature(operation.call).parameters
    except (TypeError, ValueError):  # a builtin has none
        return kwargs
    return {k: v for k, v in kwargs.items() if k not in usual or repr(usual[k].default) != repr(v)}


def _spelt(leaf: Any) -> Any:
    """What prints as Python that makes it."""
    if isinstance(leaf, Tensor) and leaf.dtype == torch.bool and leaf.numel() > 9:
        return _Name(f"torch.rand({str([*leaf.shape])[1:-1]}) < 0.5")
    if isinstance(leaf, Tensor):
        return _Name(f"torch.tensor({_digits(leaf)}, dtype={leaf.dtype})")
    if type(leaf).__module__.startswith("torch") and not repr(leaf).startswith("torch"):
        return _Name(f"{type(leaf).__module__}.{leaf!r}")
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return _Name(f'float("{leaf}")')
    return leaf


def _drawn(x: Tensor, source: str) -> str:
    """An expression for a tensor of the shape of `x`."""
    if source == "literal":
        return f"torch.tensor({_digits(x)}, dtype=torch.float64)"
    drawn = f"torch.{'rand' if source == 'rand' else 'randn'}({str([*x.shape])[1:-1] or '()'}, dtype=torch.float64)"
    if source == "wide":
        return f"10 * {drawn}"
    if source == "triangular":
        return f"{drawn}.tril()"
    return f"(lambda r: r @ r.mT)({drawn})" if source == "definite" else drawn


def _digits(x: Tensor) -> str:
    return str([round(v, 3) for v in x.flatten().tolist()] if x.dim() == 1 else _nested(x))


def _nested(x: Tensor) -> Any:
    return round(x.item(), 3) if x.dim() == 0 else [_nested(row) for row in x]
