"""What the recipe finder recommends: the automatic name, the recipe that it chooses, and the code that calls both.

The texts are templates. The page's script fills in the same templates, so that page and tests have one source.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from _tools.atlas.data import outcomes, read
from _tools.finder.model import NEEDS, NORMS, OPERATORS, Candidate, Question, candidates
from funcdiff._safety.known_wrong import RIGHT_ON_ONE, WRONG

ATLAS = Path(__file__).parents[2] / "reference" / "atlas.json"

# The function to call: at one point, and for each row of a batch.
AUTOMATIC = {
    "Gradient": ("torch.func.grad", "torch.func.grad"),
    "Jacobian": ("jacobian", "batch_jacobian"),
    "Hessian": ("hessian", "batch_hessian"),
    "Hessian-vector product": ("hvp", "hvp"),
    "Hessian diagonal": ("hessian_diagonal", "hessian_diagonal"),
    "Laplacian": ("laplacian", "laplacian"),
}
# What to call where each output depends on only a few inputs, which no fully connected network does.
SPARSE = {"Jacobian": "jacobian_sparse", "Hessian": "hessian_sparse"}
# What to wrap any of these in where a small function is differentiated many times.
PREPARED = "prepare"
# Each of these is a recipe itself: it chooses nothing.
ONE_RECIPE = {"Gradient": "torch.func.grad", "Hessian diagonal": "hessian_diagonal", "Laplacian": "laplacian"}

WHY = {
    "torch.func.grad": "One output has a gradient, which one backward pass computes",
    "jacobian_batched_grad": "reverse mode in plain autograd, with one backward pass for each output",
    "jacobian_reverse": "reverse mode, with one backward pass for each output",
    "jacobian_forward": "forward mode, with one pass for each input",
    "jacobian_taylor": "a form of forward mode, with one pass for each input",
    "hessian_taylor": "Taylor mode, with one evaluation that carries {pairs} second derivatives along",
    "hessian_forward_over_reverse": "forward mode over reverse mode, with one pass through the Jacobian for each input",
    "hessian_forward_over_forward": "forward mode twice, with one pass for each pair of inputs",
    "hessian_double_backward": "reverse mode twice in plain autograd, with one pass for each entry of the Jacobian",
    "hessian_reverse_over_reverse": "reverse mode twice, with one pass for each entry of the Jacobian",
    "hvp_double_backward": "two backward passes",
    "hvp_forward_over_reverse": "forward mode over reverse mode",
    "hessian_diagonal": "It uses Taylor mode, with a first and a second derivative for each input",
    "laplacian": "It uses Taylor mode, with a first derivative for each input and the sum of the second derivatives",
}

# By need: the call at one point and for rows, by the automatic name and by the recipe's; the shape for one row.
_CALLS = {
    "Gradient": ("grad({grad})(x)", "vmap(grad({grad}))(X)", "", "", "{n}"),
    "Jacobian": (
        "jacobian({f})(x)",
        "batch_jacobian({f})(X)",
        "{recipe}({f})(x)",
        "batch_jacobian({f}, jacobian={recipe})(X)",
        "{m}, {n}",
    ),
    "Hessian": (
        "hessian({f})(x)",
        "batch_hessian({f})(X)",
        "{recipe}({f})(x)",
        "batch_hessian({f}, hessian={recipe})(X)",
        "{m}, {n}, {n}",
    ),
    "Hessian-vector product": (
        "hvp(lambda x: {f}(x).sum(), (x,), (v,))",
        "hvp(lambda X: net(X).sum(), (X,), (V,))",
        "{recipe}(lambda x: {f}(x).sum(), (x,), (v,))",
        "{recipe}(lambda X: net(X).sum(), (X,), (V,))",
        "{n}",
    ),
    "Hessian diagonal": ("hessian_diagonal({f})(x)", "vmap(hessian_diagonal({f}))(X)", "", "", "{m}, {n}"),
    "Laplacian": ("laplacian({f})(x)", "vmap(laplacian({f}))(X)", "", "", "{m}"),
}
BY_NAME = "\n\n# By name, the recipe that it chooses here:\nfrom funcdiff import {recipe}\nresult = "
NOT_BY_NAME = "\n\n# Called by name, {recipe} is wrong\n# with respect to the weight of a {norm}."
# Batch norm takes a batch only.
ONE_ROW = "f = lambda x: net(x[None])[0]  # one row at a time\n"


class Answer(NamedTuple):
    """A recommendation: the function to call, the recipe that it chooses, the estimates and the code."""

    need: str
    take: str
    recipe: str
    candidates: list[Candidate]
    code: str


def answer(q: Question) -> Answer:
    """What the finder says to a question."""
    need, found = need_of(q), candidates(q)
    recipe = ONE_RECIPE.get(need, found[0].recipe)
    found.sort(key=lambda candidate: candidate.recipe != recipe)  # the chosen one first, the others by time
    return Answer(need, AUTOMATIC[need][q.rows > 0], recipe, found, code(q, need, recipe))


def need_of(q: Question) -> str:
    """A Jacobian of one output is a gradient."""
    return "Gradient" if q.need == "Jacobian" and q.outputs == 1 else q.need


def code(q: Question, need: str, recipe: str) -> str:
    """The lines to copy."""
    named = NOT_BY_NAME if recipe in wrong(q.norm, q.need, q.outputs > 1)["together"] else NAMED[need][q.rows > 0]
    template = TEMPLATES[need][q.rows > 0] + named
    batch_norm = q.norm == "batch norm"
    one_row = batch_norm and not (q.rows and need == "Hessian-vector product")
    texts = {"f": "f" if batch_norm else "net", "recipe": recipe, "norm": q.norm, "one row": ONE_ROW if one_row else ""}
    texts["grad"] = f"lambda x: {texts['f']}(x).squeeze()"
    return filled(template, texts | {"n": q.inputs, "m": q.outputs, "B": q.rows})


def filled(template: str, values: dict[str, Any]) -> str:
    """The template with a value in place of each name in braces."""
    return re.sub(r"{([\w ]+)}", lambda name: str(values[name[1]]), template)


def _template(need: str, rows: int) -> str:
    automatic, x = AUTOMATIC[need][rows], "Xx"[not rows]
    plain = automatic.removeprefix("torch.func.")
    funcs = [*([plain] if plain != automatic else []), *(["vmap"] if "vmap(" in _CALLS[need][rows] else [])]
    names = [f"from torch.func import {', '.join(funcs)}"] if funcs else []
    names += [f"from funcdiff import {automatic}"] if plain == automatic else []
    sizes = _CALLS[need][4]
    shape = f"({'{B}, ' if rows else ''}{sizes}{'' if rows or ',' in sizes else ','})"
    vectors = [f"{'Vv'[not rows]} = torch.randn_like({x})"] if need == "Hessian-vector product" else []
    return "\n".join(
        [
            "import torch",
            *names,
            "",
            "net.eval().requires_grad_(False)  # your network",
            *(["# to train with a loss of the result: net.eval() alone"] if automatic == "laplacian" else []),
            f"{x} = torch.randn({'{B}, ' if rows else ''}{{n}})  # your input",
            *vectors,
            f"{{one row}}result = {_CALLS[need][rows]}  # shape {shape}",
        ]
    )


TEMPLATES = {need: [_template(need, rows) for rows in (0, 1)] for need in AUTOMATIC}
NAMED = {need: [f"{BY_NAME}{call}" if call else "" for call in _CALLS[need][2:4]] for need in AUTOMATIC}


@cache
def wrong(norm: str, need: str, several: bool) -> dict[str, list[str]]:
    """The recipes that are wrong on the norm: with respect to its weight and input together, and to the input alone.

    Of several outputs or of one: there, some recipe is right.
    """
    kind = {"Jacobian": "jacobian", "Hessian-vector product": "hvp"}.get(need, "hessian")
    together = [
        mode
        for mode, operators in WRONG.items()
        if mode.startswith(kind) and "," not in mode and OPERATORS[norm] in operators
        if several or OPERATORS[norm] not in RIGHT_ON_ONE.get(mode, ())
    ]
    return {"together": together, "input": [mode for mode in together if mode in _wrong_on_input(OPERATORS[norm])]}


@cache
def _wrong_on_input(operator: str) -> frozenset[str]:
    """The recipes that are wrong on a sample of the operator of which the first tensor alone moves."""
    return frozenset(
        mode
        for entry in read(ATLAS)["entries"]
        if entry["kind"] == "operator" and entry.get("modes") and all(operator in names for names in entry["operators"])
        for mode in entry["modes"]
        for moving, found in zip(entry["moving"], outcomes(entry, mode), strict=True)
        if moving == 1 and found == "wrong"
    )


def facts() -> dict[str, Any]:
    """What the page's script needs to give the same answers."""
    return {
        "automatic": AUTOMATIC,
        "oneRecipe": ONE_RECIPE,
        "why": WHY,
        "templates": TEMPLATES,
        "named": NAMED,
        "notByName": NOT_BY_NAME,
        "oneRow": ONE_ROW,
        "wrong": {
            need: {norm: [wrong(norm, need, several) for several in (False, True)] for norm in NORMS} for need in NEEDS
        },
    }
