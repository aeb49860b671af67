"""What a function names, read from its code, and what belongs to the user rather than to an installed package."""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType

_STDLIB = sysconfig.get_path("stdlib")


@dataclass(frozen=True, eq=False)  # one object for all equal code, and so quickly compared
class Code:
    """The names in a function and in those inside it.

    Attributes:
        variables: Of globals.
        attributes: Of attributes, whatever has them.
        imports: The modules that it imports itself.
        by_name: Whether it asks for attributes by strings.
        environment: Whether it reads environment variables.
        open_ended: Whether it may reach any global, or imports by a relative name.
    """

    variables: Sequence[str]
    attributes: Sequence[str]
    imports: Sequence[str]
    by_name: bool
    environment: bool
    open_ended: bool


@functools.lru_cache(maxsize=4096)
def analysed(code: CodeType) -> Code:
    """What a function names; the same object at each call."""
    codes = [code]
    for outer in codes:
        codes += [part for part in outer.co_consts if isinstance(part, CodeType)]
    variables: dict[str, None] = {}  # as a set that keeps its order
    attributes: dict[str, None] = {}
    imports: dict[str, None] = {}
    relative = False
    for one in codes:
        steps = list(dis.get_instructions(one))
        for i, step in enumerate(steps):
            if "GLOBAL" in step.opname or step.opname == "LOAD_NAME":
                variables[step.argval] = None
            elif step.opname == "IMPORT_NAME":
                imports[step.argval] = None
                relative |= steps[i - 2].argval != 0  # the number of dots
            elif "ATTR" in step.opname or step.opname in ("LOAD_METHOD", "IMPORT_FROM"):
                attributes[step.argval] = None
    by_name = not variables.keys().isdisjoint(("getattr", "vars")) or "__dict__" in attributes
    if by_name:
        attributes |= dict.fromkeys(text for one in codes for text in one.co_consts if isinstance(text, str))
    names = {*variables, *attributes}
    return Code(
        *(tuple(variables), tuple(attributes), tuple(imports)),
        by_name=by_name,
        environment=not names.isdisjoint(("environ", "getenv")),
        open_ended=relative
        or not variables.keys().isdisjoint(("eval", "exec", "globals", "__import__"))
        or not names.isdisjoint(("import_module", "__globals__")),
    )


@functools.lru_cache(maxsize=4096)
def installed(module: str | None) -> bool:
    """Whether a module belongs to torch, to Python or to an installed package, and is not the user's own."""
    name = module or ""
    if name == "__main__":  # the user's, whatever file started the process
        return False
    if name.partition(".")[0] in ("torch", "funcdiff", *sys.builtin_module_names):
        return True
    file = str(getattr(sys.modules.get(name), "__file__", None))
    return file.startswith(_STDLIB) or "site-packages" in file or "dist-packages" in file
