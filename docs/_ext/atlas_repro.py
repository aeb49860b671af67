"""Short scripts that show a wrong derivative with torch alone, each run before it is kept."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_unflatten

from funcdiff._operations import Operation

EXPRESSIONS = {
    "jacobian_loop": "torch.autograd.functional.jacobian(f, {0})",
    "jacobian_batched_grad": "torch.autograd.functional.jacobian(f, {0}, vectorize=True)",
    "jacobian_reverse": "jacrev(f)({0})",
    "jacobian_forward": "jacfwd(f)({0})",
    "jacobian_reverse, vmap": "vmap(jacrev(f))(torch.stack([{0} + 1, {0}]))[1]",
    "jacobian_forward, vmap": "vmap(jacfwd(f))(torch.stack([{0} + 1, {0}]))[1]",
    "hessian_forward_over_reverse": "jacfwd(jacrev(f))({0})",
    "hessian_reverse_over_reverse": "jacrev(jacrev(f))({0})",
    "hessian_reverse_over_forward": "jacrev(jacfwd(f))({0})",
    "hessian_forward_over_forward": "jacfwd(jacfwd(f))({0})",
    "hvp_forward_over_reverse": "jvp(grad(f), ({0},), (torch.ones_like({0}),))[1]",
    "hvp_reverse_over_reverse": "vjp(grad(f), {0})[1](torch.ones_like({0}))[0]",
    "hvp_reverse_over_forward": "grad(lambda s: jvp(f, (s,), (torch.ones_like(s),))[1])({0})",
}

_FIRST = """\
import torch
from torch.func import {functions}

torch.manual_seed(0)
{inputs}
f = lambda {x}: {call}
print("expected", (f({x} + 1e-5 * d{x}) - f({x} - 1e-5 * d{x})) / 2e-5)
print("obtained", torch.tensordot({obtained}, d{x}, {axes}))
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


class _Name(str):
    """Prints as itself, where a repr of the arguments is written into a script."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def reproduction(
    operation: Operation, mode: str, wrong: Collection[str], right: Collection[str]
) -> dict[str, Any] | None:
    """The first script that shows `mode` wrong on `operation`, and which others of `wrong` its like shows wrong too.

    Where some mode is right, its like must show that one right: then the differences can be trusted.
    """
    witness = next((name for name in right if name in EXPRESSIONS and _order(name) == _order(mode)), None)
    for write in _scripts(operation):
        found = numbers(write(mode))
        if found is None or not differ(*found):
            continue
        check = numbers(write(witness)) if witness else found
        if check is None or (witness and differ(*check)):
            continue
        others = {name: numbers(write(name)) for name in wrong if _order(name) == _order(mode)}
        modes = [name for name, values in others.items() if values is not None and differ(*values)]
        expected, obtained = (x.flatten() for x in found)
        worst = (expected - obtained).nan_to_num(torch.inf).abs().argmax()
        numbers_found = {"expected": f"{expected[worst]:.5g}", "obtained": f"{obtained[worst]:.5g}"}
        return {"modes": modes, "script": write(mode), **numbers_found}
    return None


def _order(mode: str) -> str:
    """First or second derivative, in a batch or not."""
    return ("first" if mode.startswith("jacobian") else "second") + mode[-4:] * mode.endswith("vmap")


def numbers(script: str) -> tuple[Tensor, Tensor] | None:
    """What `script` prints as expected and obtained; None where it fails."""
    printed: dict[str, Tensor] = {}
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(script, {"print": printed.__setitem__})
        expected, obtained = printed["expected"].detach(), printed["obtained"].detach()
    except Exception:
        return None
    return (expected, obtained) if expected.isfinite().all() and obtained.shape == expected.shape else None


def differ(expected: Tensor, obtained: Tensor) -> bool:
    """By more than differences can be off."""
    return not torch.allclose(expected, obtained, rtol=0, atol=1e-2 * float(expected.abs().max()) + 1e-6)


def _scripts(operation: Operation) -> Iterator[Any]:
    """Writers of scripts, the simplest first: random inputs, then the values found; one argument, then all."""
    everything = list(operation.tangents)
    moving = dict.fromkeys([*((i,) for i in everything), tuple(everything)])
    for result, source, moved in itertools.product(
        _results(operation), ("randn", "rand", "triangular", "definite", "literal"), moving
    ):
        yield partial(_write, operation, source, moved, result)


def _results(operation: Operation) -> list[str]:
    """How to take a tensor from what the operation returns."""
    args, kwargs = tree_unflatten(operation.leaves, operation.tree)
    returned = operation.call(*args, **kwargs)
    if isinstance(returned, Tensor):
        return [""]
    return [f"[{i}]" for i, y in enumerate(returned) if isinstance(y, Tensor) and y.is_floating_point()]


def _write(operation: Operation, source: str, moved: tuple[int, ...], result: str, mode: str) -> str:
    """One script; first derivatives are of the one argument that moves, second ones along a line."""
    second = not mode.startswith("jacobian")
    leaves, inputs = list(operation.leaves), []
    for letter, i in zip("xyzwuvabc", operation.tangents, strict=False):
        points = [operation.leaves[i]]
        names = [letter]
        if i in moved:
            points += [operation.tangents[i][0], operation.tangents[i][-1]] if second else [operation.tangents[i][0]]
            names = [letter, f"d{letter}", f"e{letter}"][: len(points)]
        inputs.append(f"{', '.join(names)} = {_drawn(points, source)}")
        leaves[i] = _Name(f"{letter} + t[0] * d{letter} + t[1] * e{letter}" if second and i in moved else letter)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            leaves[i] = _Name(f"torch.tensor({_digits(leaf)}, dtype={leaf.dtype})")
        elif type(leaf).__module__.startswith("torch") and not repr(leaf).startswith("torch"):
            leaves[i] = _Name(f"{type(leaf).__module__}.{leaf!r}")
        elif isinstance(leaf, float) and not math.isfinite(leaf):
            leaves[i] = _Name(f'float("{leaf}")')
    args, kwargs = tree_unflatten(leaves, operation.tree)
    written = ", ".join([*(repr(x) for x in args), *(f"{k}={v!r}" for k, v in kwargs.items())])
    first = next(letter for letter, i in zip("xyzwuvabc", operation.tangents, strict=False) if i in moved)
    obtained = EXPRESSIONS[mode].format("t" if second else first)
    functions = [name for name in ("grad", "jacfwd", "jacrev", "jvp", "vjp", "vmap") if f"{name}(" in obtained]
    return (_SECOND if second else _FIRST).format(
        functions=", ".join(functions) or "jacrev",
        inputs="\n".join(inputs),
        x=first,
        call=f"{operation.name}({written}){result}",
        obtained=obtained,
        axes=operation.leaves[moved[0]].dim(),
    )


def _drawn(points: list[Tensor], source: str) -> str:
    """An expression for as many tensors, of the shape of the first."""
    if source == "literal":
        return ", ".join(f"torch.tensor({_digits(x)}, dtype=torch.float64)" for x in points)
    shape = [len(points)] * (len(points) > 1) + list(points[0].shape)
    drawn = f"torch.{'rand' if source == 'rand' else 'randn'}({str(shape)[1:-1] or '()'}, dtype=torch.float64)"
    if source == "triangular":
        return f"{drawn}.tril()"
    return f"(lambda r: r @ r.mT)({drawn})" if source == "definite" else drawn


def _digits(x: Tensor) -> str:
    return str([round(v, 3) for v in x.flatten().tolist()] if x.dim() == 1 else _nested(x))


def _nested(x: Tensor) -> Any:
    return round(x.item(), 3) if x.dim() == 0 else [_nested(row) for row in x]
