"""The package's cost formulas as JavaScript, written down by applying them to names in place of numbers.

What is written is arithmetic that Python and JavaScript read alike, so that a test evaluates it in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from _tools.finder.model import RECIPES, Norm, Question, Recipe, one_pass
from funcdiff._automatic.costs import Formula
from funcdiff._torch.tape import Sketch

SUM, PRODUCT, POWER, NAME = range(4)  # how tightly an expression holds together


@dataclass(frozen=True)
class Written:
    """An expression that arithmetic makes longer."""

    text: str
    tightness: int = NAME

    def within(self, tightness: int) -> str:
        """The text, in parentheses if it holds together less than it must there."""
        return self.text if self.tightness >= tightness else f"({self.text})"

    def __add__(self, other: Any) -> Written:
        return self if other == 0 else Written(f"{self.text} + {written(other).text}", SUM)

    def __radd__(self, other: Any) -> Written:
        return self if other == 0 else written(other) + self

    def __sub__(self, other: Any) -> Written:
        return Written(f"{self.text} - {written(other).within(PRODUCT)}", SUM)

    def __mul__(self, other: Any) -> Written:
        return Written(f"{self.within(PRODUCT)} * {written(other).within(PRODUCT)}", PRODUCT)

    def __rmul__(self, other: Any) -> Written:
        return self if other == 1 else written(other) * self

    def __floordiv__(self, other: Any) -> Written:
        # JavaScript has none; the formulas halve even numbers only.
        return Written(f"{self.within(PRODUCT)} / {written(other).within(POWER)}", PRODUCT)

    def __pow__(self, other: Any) -> Written:
        return Written(f"{self.within(NAME)} ** {written(other).within(NAME)}", POWER)


def written(value: Any) -> Written:
    """A number as an expression."""
    return value if isinstance(value, Written) else Written(str(value))


def _name(text: str) -> Any:
    return Written(text)


def _named(kind: type[Any], name: str, **known: Any) -> Any:
    """An instance of the dataclass whose fields are the names under which `name` has them."""
    return kind(**{field.name: known.get(field.name, _name(f"{name}.{field.name}")) for field in fields(kind)})


S = _named(Sketch, "s")


def sketch() -> dict[str, str]:
    """The counts of one pass, of a question `q`, a `norm` and the `outputs` that are differentiated."""
    counts = one_pass(_named(Question, "q"), _named(Norm, "norm"), _name("outputs"))
    # What else a sketch notes is no count, and no formula's.
    return {name: written(value).text for name, value in vars(counts).items() if type(value) in (Written, int)}


def recipes() -> dict[str, dict[str, str]]:
    """What each recipe counts of a sketch `s`."""
    parts: dict[str, Callable[[Recipe], Callable[[Any], Any]]] = {
        "flops": lambda recipe: recipe.formula.flops,
        "elements": lambda recipe: recipe.formula.elements,
        "general": lambda recipe: recipe.formula.general,
        "graphs": lambda recipe: recipe.graphs,
        "directions": lambda recipe: recipe.directions,
    }
    return {name: {part: written(of(recipe)(S)).text for part, of in parts.items()} for name, recipe in RECIPES.items()}


def cost() -> dict[str, str]:
    """What these counts cost over `rows`, by a recipe's `rates` and the `degree` of its result; numbers and seconds."""
    flops, elements, general = map(_name, ("flops", "elements", "general"))
    graphs, directions = map(_name, ("graphs", "directions"))
    rates: Any = tuple(_name(f"rates[{i}]") for i in range(7))
    formula = Formula(
        lambda s: flops, lambda s: elements, _name("degree"), lambda s: 0, rates, rates, rates, rates, lambda s: general
    )
    recipe = Recipe(formula, lambda s: graphs, lambda s: directions, _name("identity"))
    made: Any = formula.cost(S, _name("rows"))
    peak: Any = recipe.peak(S, _name("rows"), _name("width"))
    return {"flops": made.flops.text, "results": made.results.text, "seconds": made.seconds.text, "held": peak.text}


def script() -> str:
    """All of it, as `funcdiffFormulas`."""
    counted = ",\n".join(
        f'    "{name}": {{ {", ".join(f"{part}: (s) => {text}" for part, text in parts.items())} }}'
        for name, parts in recipes().items()
    )
    return (
        "window.funcdiffFormulas = {\n"
        f"  sketch: (q, norm, outputs) => ({_object(sketch())}),\n"
        "  cost: (s, rows, width, { degree, rates, identity }, { flops, elements, general, graphs, directions }) => "
        f"({_object(cost())}),\n"
        f"  recipes: {{\n{counted}\n  }}\n}};"
    )


def _object(parts: dict[str, str]) -> str:
    return f"{{ {', '.join(f'{name}: {text}' for name, text in parts.items())} }}"
