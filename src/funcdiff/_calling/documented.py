"""The parts of a docstring that the recipes share are written here once, and inserted where a recipe is defined."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

_NESTED = "For pytrees, the result has one such block for each {tensors}, nested in this order."
_LIKE_JACOBIAN = "The shape is that of the output followed by that of the argument: (m, n) for n inputs and m outputs. "
SHAPES = {
    "Jacobian": _LIKE_JACOBIAN + _NESTED.format(tensors="tensor of the output and each tensor of the argument"),
    "diagonal": _LIKE_JACOBIAN + _NESTED.format(tensors="tensor of the output and each tensor of the argument"),
    "Hessian": "The shape is that of the output followed twice by that of the argument: (n, n) for a function from n "
    "inputs to a scalar. " + _NESTED.format(tensors="tensor of the output and each pair of tensors of the argument"),
    "Laplacian": "The result has the shape of the output.",
    "Bilaplacian": "The result has the shape of the output.",
}
_SINGLE = "With a tuple, the result contains a tuple with one block for each of these arguments."
_PAIRS = "With a tuple, the result contains a tuple of tuples, with one block for each pair of these arguments."
_TOGETHER = "With a tuple, the entries of all these arguments together give one matrix."
BLOCKS = {"Hessian": _PAIRS, "Hessians": _PAIRS, "Gram matrix": _TOGETHER}
ARGS = {
    "func": "The function to differentiate. Its arguments and its output are tensors, or dicts, lists and tuples of "
    "tensors (pytrees).",
    "argnums": "Which argument to differentiate with respect to: its position, or a tuple of positions. {blocks}",
    "has_aux": "Whether `func` returns `(output, aux)`, where `aux` consists of tensors and is not differentiated. The "
    "new function then returns `({name}, aux)`.",
    "randomness": 'What random operations in `func` do, as in `torch.func.vmap`: "error" raises an error, "same" draws '
    'the same numbers for all rows or columns of the matrix, and "different" draws other numbers for each.',
}
RETURNS = (
    "A function that takes the arguments of `func` and returns the {result}. {shape} You can backpropagate through the "
    "result if an argument, or another tensor that `func` uses, requires grad."
)
RAISES = {
    "TypeError": "The output, or an argument to differentiate with respect to, is not a dense tensor of real "
    "floating-point numbers. Or an option has the wrong type.",
    "ValueError": "`argnums`, `chunk_size` or `randomness` has a value that is not allowed.",
    "RuntimeError": "torch cannot differentiate `func`. The message says what to do.",
}


def documented(
    result: str, *, returns: str = RETURNS, raises: Mapping[str, str] | None = None, **own: str
) -> Callable[[F], F]:
    """Insert Args, Returns and Raises after the Example of a docstring.

    Args:
        result: What the recipe computes, in a word. It selects the text about the shape; others write their own.
        returns: The text of Returns.
        raises: Texts for errors, which replace the shared ones or stand after them.
        **own: Texts for parameters that replace the shared ones.

    Returns:
        The decorator. It changes the docstring alone.
    """
    words = {
        "result": result,
        "name": result.lower(),
        "shape": SHAPES.get(result, ""),
        "blocks": BLOCKS.get(result, _SINGLE),
    }

    def complete(recipe: F) -> F:
        if recipe.__doc__ is None:  # python -OO
            return recipe
        texts = {**ARGS, **own}
        parameters = [str(parameter).partition(":")[0] for parameter in inspect.signature(recipe).parameters.values()]
        blocks = [
            section("Args", *(entry(f"{name}: {texts[name.lstrip('*')]}", words) for name in parameters)),
            section("Returns", entry(returns, words, hanging=4)),
            section(
                "Raises", *(entry(f"{name}: {text}", words) for name, text in {**RAISES, **(raises or {})}.items())
            ),
        ]
        opening, example, *after = re.split(r"\n(?=[A-Z][A-Za-z ]+:\n)", inspect.cleandoc(recipe.__doc__))
        recipe.__doc__ = "\n".join([opening, example, *blocks, *after])
        return recipe

    return complete


def section(title: str, *entries: str) -> str:
    return "\n".join([f"{title}:", *entries, ""])


def entry(text: str, words: Mapping[str, str], hanging: int = 8) -> str:
    """A paragraph of a section, with these words in the places of their names."""
    text = " ".join(text.format(**words).split())
    return textwrap.fill(
        text,
        116,
        initial_indent="    ",
        subsequent_indent=" " * hanging,
        break_on_hyphens=False,
        break_long_words=False,
    )
