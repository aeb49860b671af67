"""The parts of a docstring that the recipes share are written here once, and inserted where a recipe is defined."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

SHAPES = {
    "Jacobian": "The shape of the output followed by the shape of the input, for each output leaf and each leaf of the "
    "differentiated arguments. A function from R^n to R^m has an (m, n) matrix. Pytrees nest the output outermost.",
    "Hessian": "The shape of the output followed twice by the shape of the input. A function from R^n to R has an "
    "(n, n) matrix. Pytrees nest the output outermost, then the input, then the input again.",
    "product": "Those of the primals.",
}
ARGS = {
    "func": "The function. It takes tensors or pytrees of tensors, and returns a tensor or a pytree of tensors.",
    "argnums": "The position of the argument to differentiate with respect to, or a tuple of positions. With a tuple, "
    "the result contains a tuple with a block for each of these arguments, and a Hessian a tuple of tuples with a "
    "block for each pair.",
    "has_aux": "Whether `func` returns `(output, aux)`. The new function then returns `({name}, aux)`.",
    "randomness": 'What random operations in `func` do, as in `torch.func.vmap`: "error" refuses them, "same" uses one '
    'draw for all directions, and "different" draws anew for each direction.',
}
RETURNS = (
    "A function that takes the arguments of `func` and returns the {result}. The result carries an autograd graph only "
    "if an argument, or another tensor that `func` uses, requires grad."
)
RAISES = {
    "TypeError": "A differentiated argument or an output is not a real, dense, floating-point tensor, or an option has "
    "the wrong type.",
    "ValueError": "`argnums`, `chunk_size` or `randomness` is out of range.",
    "RuntimeError": "`func` writes into its argument, or torch cannot differentiate it. The message names the remedy.",
}


def documented(
    result: str, *, returns: str = RETURNS, raises: Mapping[str, str] | None = None, **own: str
) -> Callable[[F], F]:
    """Insert Shapes before the Cost of a docstring, and Args, Returns and Raises before its Example.

    Args:
        result: What the recipe computes, in a word. It selects the text of Shapes; others write their own.
        returns: The text of Returns.
        raises: Texts for errors, which replace the shared ones or stand after them.
        **own: Texts for parameters that replace the shared ones.

    Returns:
        The decorator. It changes the docstring alone.
    """

    def complete(recipe: F) -> F:
        if recipe.__doc__ is None:  # python -OO
            return recipe
        texts = {**ARGS, **own}
        parameters = [str(parameter).partition(":")[0] for parameter in inspect.signature(recipe).parameters.values()]
        blocks = [
            section("Args", *(entry(f"{name}: {texts[name.lstrip('*')]}") for name in parameters)),
            section("Returns", entry(returns, hanging=4)),
            section("Raises", *(entry(f"{name}: {text}") for name, text in {**RAISES, **(raises or {})}.items())),
        ]
        shared = "\n".join(blocks).format(result=result, name=result.lower())
        text = inspect.cleandoc(recipe.__doc__)
        if result in SHAPES:
            text = text.replace("\nCost:", f"\n{entry(f'Shapes: {SHAPES[result]}', 0, 0)}\n\nCost:")
        head, example = text.split("\nExample:\n")
        recipe.__doc__ = f"{head}\n{shared}\nExample:\n{example}"
        return recipe

    return complete


def section(title: str, *entries: str) -> str:
    return "\n".join([f"{title}:", *entries, ""])


def entry(text: str, indent: int = 4, hanging: int = 8) -> str:
    first, rest = " " * indent, " " * hanging
    return textwrap.fill(
        text, 116, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )
