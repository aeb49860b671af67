"""Steps as a Python function: what runs, and what is shown."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from funcdiff._prepared.values import Value, parts_of, ready


@dataclass(frozen=True)
class Written:
    """A line of operations as a function.

    Attributes:
        run: The function of the arguments' tensors; it returns a list.
        code: Its text; what stands before the asterisk are its arguments, after it what it holds.
        held: The tensors that it holds, by their names in the text.
        operations: How often each of its operations stands in it.
    """

    run: Callable[..., list[Tensor]]
    code: str
    held: Mapping[str, Tensor]
    operations: Counter[str]

    @property
    def steps(self) -> int:
        """The number of its operations."""
        return self.operations.total()


def written(
    steps: Sequence[Value], results: Sequence[Any], name: str, arguments: Sequence[str], held: Mapping[int, str]
) -> Written:
    """Write the steps down; `held` are names for the tensors that the function holds, by identity."""
    names: dict[int, str] = {}
    taken = dict.fromkeys(_MEANT, 1)

    def free(wish: str) -> str:
        """The part of a path that says what it is, or with a number what nobody else is called."""
        meant = unicodedata.normalize("NFKC", _ABOVE.sub("", wish))  # as Python reads names
        word = re.sub("__+", "_", "".join(c if f"a{c}".isidentifier() else "_" for c in meant)).strip("_") or "constant"
        word = word if word.isidentifier() else f"held_{word}"
        word = found = f"{word}_" if keyword.iskeyword(word) else word
        while found in taken:
            taken[word] += 1
            found = f"{word}_{taken[word]}"
        taken[found] = 1
        return found

    def named(value: Value, wish: str) -> str:
        names[id(value)] = free(wish)
        return names[id(value)]

    name, arguments = free(name), [free(argument) for argument in arguments]

    kept: dict[str, Tensor] = {}
    body: list[tuple[str, Value]] = []
    for value in steps:
        if value.argument is not None:
            names[id(value)] = arguments[value.argument]
        elif value.target is None:
            kept[named(value, held.get(id(value.example), "held"))] = value.example
        elif ready(value):
            kept[named(value, _operation(value.target))] = value.example.detach()
        else:
            body.append((named(value, _operation(value.target)), value))
    lines = [f"{word} = " * (value.example is not None) + _call(value, names) for word, value in body]
    returned = f"return [{', '.join(_text(result, names) for result in results)}]"
    head = f"def {name}({', '.join([*arguments, '*', *kept] if kept else arguments)}):"
    running = [f"def {name}({', '.join(arguments)}):", *_freeing(lines, body, results, names), returned]
    space: dict[str, Any] = {"torch": torch, "aten": torch.ops.aten, "device": torch.device, **kept}
    exec("\n    ".join(running), space)
    return Written(
        space[name],
        "\n    ".join([head, *lines, returned]),
        kept,
        Counter(_operation(value.target) for _, value in body),
    )


_MEANT = "torch", "aten", "device", "float"  # which the text calls
_ABOVE = re.compile(r"^.*\.(?=[^.\d])")  # in a path such as net.weights.0, whose number says nothing alone


def _freeing(
    lines: Sequence[str], body: Sequence[tuple[str, Value]], results: Any, names: Mapping[int, str]
) -> list[str]:
    """Each line followed by `del` of what no later one uses."""
    own = {id(value): word for word, value in body}
    last: dict[str, int] = {}
    for i, (word, value) in enumerate(body):
        if value.example is not None:
            last[word] = i  # what was written to in place is not used by this name
        for part in parts_of((value.args, value.kwargs)):
            if id(part) in own:
                last[own[id(part)]] = i
    for part in parts_of(results):
        last.pop(names[id(part)], None)
    return [
        f"{line}; del {', '.join(gone)}" if (gone := [w for w, at in last.items() if at == i]) else line
        for i, line in enumerate(lines)
    ]


def _operation(target: Any) -> str:
    return str(target.overloadpacket.__name__) if hasattr(target, "overloadpacket") else str(target.__name__)


def _call(value: Value, names: Mapping[int, str]) -> str:
    if value.target.__name__ == "getitem":
        return f"{_text(value.args[0], names)}[{value.args[1]}]"
    given = [_text(arg, names) for arg in value.args]
    given += [f"{name}={_text(arg, names)}" for name, arg in value.kwargs.items() if arg is not None]
    namespace = value.target.namespace
    prefix = namespace if namespace == "aten" else f"torch.ops.{namespace}"
    return f"{prefix}.{value.target.__name__}({', '.join(given)})"


def _text(tree: Any, names: Mapping[int, str]) -> str:
    if isinstance(tree, Value):
        return names[id(tree)]
    if isinstance(tree, list | tuple):
        return f"[{', '.join(_text(part, names) for part in tree)}]"
    if (isinstance(tree, float) and tree != tree) or tree in (float("inf"), float("-inf")):
        return f"float('{tree}')"
    return repr(tree)
