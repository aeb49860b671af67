"""The estimates of the recipe finder: the package's formulas, on a network of given sizes.

`script` writes the formulas down for the page's script; a test in the browser compares its answers with these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from funcdiff._automatic.candidates import PRODUCTS
from funcdiff._automatic.costs import FORMULAS, Formula, pairs
from funcdiff._safety.known_wrong import CORRECTED, INSIDE_TRANSFORM
from funcdiff._torch.tape import Sketch


@dataclass(frozen=True)
class Question:
    """A derivative of a fully connected network with respect to its input; without rows, at one point."""

    need: str
    inputs: int
    outputs: int
    rows: int = 0
    width: int = 1000
    layers: int = 2
    norm: str = "none"


@dataclass(frozen=True)
class Norm:
    """A hidden layer's operations, and the numbers that its norm writes; some of them before the first bend."""

    wide: int = 0  # numbers, for each unit of the layer
    more: int = 0  # and beside
    straight_wide: int = 0  # of them, in the first layer, those without second derivatives
    straight_more: int = 0
    calls: int = 4
    general: int = 0
    nested: int = 0


# As it stands, and as a safe norm: written as the simpler operations it consists of.
NORMS = {
    "none": (Norm(), Norm()),
    "layer norm": (Norm(1, 2, calls=5, general=1, nested=1), Norm(5, 4, 1, 1, calls=13, general=3, nested=1)),
    # Here a point is a batch of one row, which spares the two views that a layer makes of a point.
    "batch norm": (Norm(1, calls=3, general=1, nested=1), Norm(4, 0, 4, calls=6)),
}
# torch's names of these norms, by which recipes are wrong on them: on a batch norm in evaluation mode none is.
OPERATORS = {"none": "", "layer norm": "native_layer_norm", "batch norm": ""}


@dataclass(frozen=True)
class Recipe:
    """A recipe's formula, and what it holds in memory.

    NOTE [peak]. The result; the graphs that are kept, each as many numbers as the network writes; a hidden layer four
    times in each direction carried at once, as an operation reads one, writes one and takes two on the way; and the
    identity, where the directions are those of the inputs.
    """

    formula: Formula
    graphs: Callable[[Sketch], int]
    directions: Callable[[Sketch], int]
    identity: bool = True

    def peak(self, s: Sketch, rows: int, width: int) -> int:
        """Numbers held at once, beside the network and the result."""
        held = self.graphs(s) * s.elements + 4 * self.directions(s) * width
        return rows * held + self.identity * s.inputs**2


GRADIENT = "torch.func.grad"


def _one(s: Sketch) -> Sketch:
    """A product is the Hessian's formula with one direction in place of n."""
    return replace(s, inputs=1)


def _kind(flops: Callable[[Sketch], int], elements: Callable[[Sketch], int], degree: int, like: str) -> Formula:
    return replace(FORMULAS[like], flops=flops, elements=elements, degree=degree)


def _product(like: str) -> Formula:
    hessian = FORMULAS[like]
    return _kind(lambda s: hessian.flops(_one(s)), lambda s: hessian.elements(_one(s)), 1, like)


RECIPES = {
    GRADIENT: Recipe(FORMULAS["jacobian_batched_grad"], lambda s: 1, lambda s: s.outputs, False),
    "jacobian_batched_grad": Recipe(FORMULAS["jacobian_batched_grad"], lambda s: 1, lambda s: s.outputs, False),
    "jacobian_forward": Recipe(FORMULAS["jacobian_forward"], lambda s: 0, lambda s: 1 + s.inputs),
    "jacobian_taylor": Recipe(FORMULAS["jacobian_taylor"], lambda s: 0, lambda s: 1 + s.inputs),
    "hessian_taylor": Recipe(FORMULAS["hessian_taylor"], lambda s: 0, lambda s: 1 + s.inputs + pairs(s.inputs)),
    "hessian_forward_over_reverse": Recipe(
        FORMULAS["hessian_forward_over_reverse"],
        lambda s: 1 + s.inputs,
        lambda s: (1 + s.inputs) * (1 + s.outputs),
    ),
    "hessian_forward_over_forward": Recipe(
        FORMULAS["hessian_forward_over_forward"], lambda s: 0, lambda s: (1 + s.inputs) ** 2
    ),
    "hessian_double_backward": Recipe(
        FORMULAS["hessian_double_backward"],
        lambda s: 1 + s.outputs,
        lambda s: s.outputs * (1 + s.inputs * s.outputs),
        False,
    ),
    "hessian_diagonal": Recipe(
        _kind(
            lambda s: s.flops + s.inputs * (s.jvp_flops + s.curved),
            lambda s: s.elements * (1 + s.inputs) + s.inputs * s.curved_elements,
            1,
            "jacobian_taylor",
        ),
        lambda s: 0,
        lambda s: 1 + 2 * s.inputs,
    ),
    "laplacian": Recipe(
        _kind(
            lambda s: s.flops + s.inputs * s.jvp_flops + s.curved,
            lambda s: s.elements * (1 + s.inputs) + s.curved_elements,
            0,
            "jacobian_taylor",
        ),
        lambda s: 0,
        lambda s: 2 + s.inputs,
    ),
    "hvp_double_backward": Recipe(_product("hessian_double_backward"), lambda s: 2, lambda s: 2, False),
    "hvp_forward_over_reverse": Recipe(_product("hessian_forward_over_reverse"), lambda s: 2, lambda s: 4, False),
}
_HESSIANS = [name for name in FORMULAS if name.startswith("hessian")]
_JACOBIANS = [name for name in FORMULAS if name.startswith("jacobian")]
NEEDS = {
    "Jacobian": _JACOBIANS,
    "Hessian": _HESSIANS,
    "Hessian-vector product": [name for name in PRODUCTS if name in RECIPES],  # not the last resort, which has no name
    "Hessian diagonal": ["hessian_diagonal", *_HESSIANS],
    "Laplacian": ["laplacian", "hessian_diagonal", *_HESSIANS],
}


def sketch(q: Question, with_safe_forms: bool = False) -> Sketch:
    """One pass of the network, as the package would sketch it."""
    outputs = 1 if q.need == "Hessian-vector product" else q.outputs  # the product is of their sum
    return one_pass(q, NORMS[q.norm][with_safe_forms], outputs)


def one_pass(q: Question, norm: Norm, outputs: int) -> Sketch:
    """The counts of one pass with this norm in each hidden layer; arithmetic alone, which `script` writes down."""
    first = 2 * q.inputs * q.width
    flops = first + 2 * (q.layers - 1) * q.width**2 + 2 * q.width * q.outputs
    elements = q.layers * ((2 + norm.wide) * q.width + norm.more) + q.outputs
    straight = q.width * (1 + norm.straight_wide) + norm.straight_more  # what the first layer writes before it bends
    counts = flops, flops, flops, flops - first, flops, elements, elements - straight
    general, nested = q.layers * norm.general, q.layers * norm.nested
    return Sketch(q.inputs, outputs, *counts, q.layers * norm.calls + 3, general, nested)


def has_safe_norms(name: str) -> bool:
    """Whether norms are written as simpler operations under this recipe, as `funcdiff.hessian` runs it."""
    return name in CORRECTED or "taylor" in name or name in ("laplacian", "hessian_diagonal")


@dataclass(frozen=True)
class Candidate:
    """A recipe by the name to import, and what it would cost."""

    recipe: str
    flops: int
    result: int
    peak: int
    seconds: float


def candidates(q: Question) -> list[Candidate]:
    """What can answer the question, by predicted time; in bytes of float32."""
    rows = q.rows or 1

    def candidate(name: str) -> Candidate:
        s, recipe = sketch(q, has_safe_norms(name)), RECIPES[name]
        cost = recipe.formula.cost(s, rows)
        shown = INSIDE_TRANSFORM.get(name, name) if q.rows and q.need != "Hessian-vector product" else name
        peak = cost.results + recipe.peak(s, rows, q.width)
        return Candidate(shown, cost.flops, 4 * cost.results, 4 * peak, cost.seconds)

    gradient = [GRADIENT] if q.need == "Jacobian" and q.outputs == 1 else []
    return sorted(map(candidate, gradient + NEEDS[q.need]), key=lambda c: c.seconds)


def facts() -> dict[str, Any]:
    """What the page's script needs beside the formulas."""
    return {
        "recipes": {
            name: {
                "rates": [r.formula.rates, r.formula.rates_of_rows],
                "degree": r.formula.degree,
                "identity": r.identity,
                "safe": has_safe_norms(name),
            }
            for name, r in RECIPES.items()
        },
        "needs": NEEDS,
        "norms": {name: [asdict(norm) for norm in both] for name, both in NORMS.items()},
        "inside": INSIDE_TRANSFORM,
    }
