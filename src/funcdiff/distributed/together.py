"""A transform that all processes call together: what they must agree on is compared at the first call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor

from funcdiff._calling.arguments import refuse_keywords
from funcdiff._calling.types import Function
from funcdiff._torch.compiler import named_after
from funcdiff._torch.trees import Tree, flatten, hashed
from funcdiff.distributed.digests import facts_of, no_facts
from funcdiff.distributed.processes import Processes, refuse_inside
from funcdiff.distributed.sharing import handed_over

Local = Callable[[Processes, Sequence[Tree]], Tree]  # what this process computes of the arguments


def together(call: str, func: Function, local: Local, *, group: Any, gather: bool, **options: Any) -> Function:
    """Make a transform of `local`. Later calls with the same shapes send nothing, and so compare nothing."""
    agreed: set[Hashable] = set()

    @named_after(func)
    def wrapper(*args: Tree, **kwargs: Any) -> Tree:
        refuse_keywords(kwargs)
        refuse_inside(call)
        processes = Processes(group, call)
        leaves, spec = flatten(args)
        shapes = tuple(x.shape if isinstance(x, Tensor) else None for x in leaves)
        if (key := (shapes, hashed(spec))) in agreed:
            return handed_over(local(processes, args), gather, processes)
        facts, error = attempted(lambda: facts_of(func, args, gather=gather, **options))
        processes.agree(facts or no_facts(), error)
        result, error = attempted(lambda: local(processes, args))
        processes.agree({}, error)
        agreed.add(key)
        return handed_over(result, gather, processes)

    return wrapper


def attempted(run: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What `run` returns, or the error that it raises, which is kept until all processes know of it."""
    try:
        return run(), None
    except Exception as error:
        return None, error
