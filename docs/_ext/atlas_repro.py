"""Short scripts that show a wrong derivative with torch alone, each run before it is kept."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Iterator
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
    "hessian_forward_over_reverse": "jacfwd(jacrev(f))({0})",
    "hessian_reverse_over_reverse": "jacrev(jacrev(f))({0})",
    "hessian_reverse_over_forward": "jacrev(jacfwd(f))({0})",
    "hessian_forward_over_forward": "jacfwd(jacfwd(f))({0})",
}

_FIRST = """\
import torch
from torch.func import jacfwd, jacrev

torch.manual_seed(0)
{inputs}
f = lambda {x}: {call}
h = 1e-5
expected = (f({x} + h * d{x}) - f({x} - h * d{x})) / (2 * h)
obtained = torch.tensordot({obtained}, d{x}, {axes})
print("expected", expected, "obtained", obtained)
"""

_SECOND = """\
import torch
from torch.func import jacfwd, jacrev

torch.manual_seed(0)
{inputs}
f = lambda t: {call}.pow(3).sum()
t, h = torch.zeros((), dtype=torch.float64), 1e-3
expected = (f(t + h) - 2 * f(t) + f(t - h)) / h**2
obtained = {obtained}
print("expected", expected, "obtained", obtained)
"""


class _Name(str):
    """Prints as itself, where a repr of the arguments is written into a script."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def reproduction(operation: Operation, mode: str, right: Collection[str]) -> dict[str, str] | None:
    """The first script that shows `mode` wrong on `operation` and, where some are, a mode in `right` right."""
    witness = next((name for name in right if name.split("_")[0] == mode.split("_")[0]), None)
    for write in _scripts(operation):
        script = write(mode)
        found = numbers(script)
        if found is None or not differ(*found):
            continue
        check = numbers(write(witness)) if witness else None
        if check is None or not differ(*check):
            expected, obtained = (str(torch.round(x.flatten()[:3], decimals=4).tolist()) for x in found)
            return {"script": script, "expected": expected, "obtained": obtained}
    return None


def numbers(script: str) -> tuple[Tensor, Tensor] | None:
    """What `script` expected and obtained; None where it fails."""
    namespace: dict[str, Any] = {"print": lambda *_: None}
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(script, namespace)
        expected, obtained = namespace["expected"].detach(), namespace["obtained"].detach()
    except Exception:
        return None
    return (expected, obtained) if expected.isfinite().all() else None


def differ(expected: Tensor, obtained: Tensor) -> bool:
    """By more than differences can be off."""
    return not torch.allclose(expected, obtained, rtol=1e-3, atol=1e-3 * float(expected.abs().max()) + 1e-6)


def _scripts(operation: Operation) -> Iterator[Any]:
    """Writers of scripts, the simplest first: random inputs, then the values found; one argument, then all."""
    everything = list(operation.tangents)
    for source, moved, result in itertools.product(
        ("randn", "rand", "definite", "literal"),
        dict.fromkeys([*((i,) for i in everything), tuple(everything)]),
        ("", "[0]", "[1]", "[2]"),
    ):
        yield lambda mode, source=source, moved=moved, result=result: _write(operation, mode, source, moved, result)


def _write(operation: Operation, mode: str, source: str, moved: tuple[int, ...], result: str) -> str:
    """One script; second derivatives are taken along a line, first ones of the one argument that moves."""
    second = mode.startswith("hessian")
    leaves, inputs = list(operation.leaves), []
    for letter, i in zip("xyzwuvabc", operation.tangents, strict=False):
        leaf, tangent = operation.leaves[i], operation.tangents[i].sum(0)
        inputs.append(_input(letter, leaf, tangent, source, i in moved))
        leaves[i] = _Name(f"{letter} + t * d{letter}" if second and i in moved else letter)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            leaves[i] = _Name(f"torch.tensor({_digits(leaf)}, dtype={leaf.dtype})")
    args, kwargs = tree_unflatten(leaves, operation.tree)
    written = ", ".join([*(repr(x) for x in args), *(f"{k}={v!r}" for k, v in kwargs.items())])
    first = next(letter for letter, i in zip("xyzwuvabc", operation.tangents, strict=False) if i in moved)
    return (_SECOND if second else _FIRST).format(
        inputs="\n".join(inputs),
        x=first,
        call=f"{operation.name}({written}){result}",
        obtained=EXPRESSIONS[mode].format("t" if second else first),
        axes=operation.leaves[moved[0]].dim(),
    )


def _input(letter: str, leaf: Tensor, tangent: Tensor, source: str, moves: bool) -> str:
    names = f"{letter}, d{letter}" if moves else letter
    if source == "literal":
        values = [f"torch.tensor({_digits(x)}, dtype=torch.float64)" for x in ([leaf, tangent] if moves else [leaf])]
        return f"{names} = {', '.join(values)}"
    shape = ", ".join(str(n) for n in ((2, *leaf.shape) if moves else leaf.shape))
    draw = "rand" if source == "rand" else "randn"
    drawn = f"torch.{draw}({shape}{', ' if shape else '(), '}dtype=torch.float64)"
    if source == "definite":
        drawn = f"(lambda r: r @ r.mT)({drawn})"
    return f"{names} = {drawn}"


def _digits(x: Tensor) -> str:
    return str([round(v, 3) for v in x.flatten().tolist()] if x.dim() == 1 else _nested(x))


def _nested(x: Tensor) -> Any:
    return round(x.item(), 3) if x.dim() == 0 else [_nested(row) for row in x]
