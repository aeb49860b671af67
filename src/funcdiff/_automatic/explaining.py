"""A plan in words and numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from funcdiff._automatic import lookup
from funcdiff._automatic.candidates import PRODUCTS
from funcdiff._automatic.passes import passes
from funcdiff._automatic.planning import Candidate, Plan
from funcdiff._automatic.products import hvp, hvp_operator
from funcdiff._calling.point import check_tuple
from funcdiff._calling.types import Function
from funcdiff._safety.known_wrong import NOTE
from funcdiff._tables import Shown, Table, amount_of_bytes, amount_of_flops, number_of, seconds
from funcdiff._torch.trees import Tree

if TYPE_CHECKING:
    from funcdiff._automatic.sparse_explaining import SparseExplanation


# Medians over random networks on one core: the share of a call's machinery that a prepared line does not have, the
# calls that preparing takes the time of, the seconds that the first prepare of a process takes more, and those of
# torch.compile.
_LEFT_OUT = 0.83
_PREPARING = 160
_FIRST = 2.5
_COMPILING = 7.0


@dataclass(frozen=True, repr=False)
class Explanation(Shown):
    """What was chosen, and what every candidate would cost."""

    plan: Plan
    kept: bool = True  # otherwise each call makes a plan, and checks its result

    @property
    def recipe(self) -> str:
        """The name of the recipe that is used."""
        return self.plan.usable[0]

    def table(self) -> Table:
        """The candidates, the one that is used first."""
        unchecked = "not checked yet" if self.kept else "checked at each call"
        within = any(c.chunk for c in self.plan.candidates)  # a budget

        def row(c: Candidate) -> tuple[str, ...]:
            cost = c.cost
            amounts = (amount_of_flops(cost.flops), str(cost.elements), seconds(cost.seconds)) if cost else ("",) * 3
            fit = (str(c.chunk or ""), amount_of_bytes(c.peak) if c.peak else "") if within else ()
            told = [c.obstacle] if c.obstacle else [f"used; {c.check or unchecked}"] if c.name == self.recipe else []
            wrong = [f"can be wrong if called by name: {', '.join(sorted(c.rewritten))}"] if c.rewritten else []
            return c.name, *amounts, *fit, "; ".join(told + wrong)

        rows = tuple(map(row, self.plan.candidates))
        s = self.plan.sketch
        sizes = f"{number_of(s.inputs, 'input')}, {number_of(s.outputs, 'output')}"
        made = passes(self.recipe, s)
        counted = (
            f"{sizes}{made and ': '}{made}. {amount_of_flops(s.flops)} of matrix products in a run of func; times of a "
            f"typical core{self._preparing()}"
        )
        counted += f". {NOTE}." if NOTE else ""
        fit = ("at once", "peak") if within else ()
        return Table(("recipe", "matrix FLOPs", "numbers written", "predicted", *fit, ""), rows, counted)

    def _preparing(self) -> str:
        """From how many calls on it saves time to prepare or to compile, where that is known and worth saying."""
        cost = self.plan.candidates[0].cost
        saved = _LEFT_OUT * cost.machinery if cost else 0
        if cost is None or saved < cost.seconds / 10 or self.plan.sketch.on_gpu:
            return ""
        preparing = _PREPARING * cost.seconds
        calls, first, compiled = (_rounded(once / saved) for once in (preparing, preparing + _FIRST, _COMPILING))
        return (
            f". A call is predicted to take {seconds(cost.seconds)}, and {seconds(cost.seconds - saved)} with prepare, "
            f"which saves time from about {calls} calls on, or {first} if the process has prepared nothing before "
            f"(torch.compile: from about {compiled})"
        )


@dataclass(frozen=True, repr=False)
class PreparedExplanation(Shown):
    """The operations that a prepared function consists of, how many were traced, and the bytes of what it holds."""

    recipe: str
    operations: Counter[str]
    traced: int
    held: int

    def table(self) -> Table:
        """The operations, the commonest first."""
        rows = tuple((name, str(times)) for name, times in self.operations.most_common())
        left = number_of(self.operations.total(), "operation")
        told = f"{left}, {self.traced} as traced; holds {amount_of_bytes(self.held)} of tensors"
        return Table(("operation", "times"), rows, told)


def _rounded(count: float) -> str:
    return f"{float(f'{count:.1g}'):,.0f}"


def explain(transform: Function, *primals: Tree) -> Explanation | SparseExplanation | PreparedExplanation:
    """Show which method an automatic function chooses for these arguments, and what the others would cost.

    Where you call `jacobian(func)(x)`, write `explain(jacobian(func), x)`. Print the result to see a table. Its first
    line is the method that is used, and each other line is a method that could be used, with its predicted time.

    Example:
        For a function from 2 inputs to 1000 outputs, forward mode (Taylor mode of order one) is chosen.

        >>> import torch
        >>> from funcdiff import explain, jacobian
        >>> explain(jacobian(lambda x: x.sum() * torch.ones(1000)), torch.ones(2)).recipe
        'jacobian_taylor'

        For a product, pass `hvp` itself, and then its arguments.

        >>> from funcdiff import hvp
        >>> explain(hvp, lambda x: x.pow(3).sum(), (torch.ones(2),), (torch.ones(2),)).recipe
        'hvp_double_backward'

    Args:
        transform: What `jacobian(func)`, `hessian(func)`, `batch_jacobian(func)` or another automatic function
            returned. Or `hvp` or `hvp_operator` itself, or what `prepare` returned.
        *primals: The arguments of the call to explain. For `hvp` and `hvp_operator`, first `func`. For what `prepare`
            returned, none.

    Returns:
        A table with the FLOPs of each method, the numbers it writes to memory and its predicted time. A method without
        a predicted time is used only if those with one fail. If none has one, as for products, the methods are tried in
        the order of the lines. "Checked at each call" says that no choice is kept, because `func` changes something in
        each call, such as a counter, or reads values. Where PyTorch gets an operation wrong, the automatic functions
        replace it by simpler ones. Called by name, such a method "can be wrong", as its line says. The attribute
        `recipe` is the name of the chosen method. For a small function, the caption says after how many calls `prepare`
        saves time. For a prepared function, the table counts the operations. For a Jacobian or a Hessian, the caption
        says how many passes through `func` the chosen method makes in which mode, in addition to the first run. With a
        budget, "at once" is the chunk size: rows of the batch for a batch, and otherwise rows or columns of the matrix.

    Raises:
        TypeError: `transform` is something else. A function whose name says the method, such as `jacobian_forward`,
            chooses nothing. `bilaplacian`, `gram_matrix` and operators are not explained.

    Cost:
        `func` runs once or twice. Nothing is differentiated, except that the choice for a batch is checked, and that a
        few chunks are computed if there is a budget.
    """
    if (explained := getattr(transform, "explained", None)) is not None:
        return explained(primals)  # type: ignore[no-any-return]  # an explanation, hung on a function
    if transform in (hvp, hvp_operator):
        func, *point = primals
        if transform is hvp:
            check_tuple(*point[:1])
        at = point[0] if transform is hvp else tuple(point)
        found = lookup.for_product(tuple(PRODUCTS), func, True, at)
    elif (planned := getattr(transform, "found", None)) is not None:
        found = planned(primals)
    else:
        raise TypeError(
            "expected what an automatic function returned, such as funcdiff.jacobian(func), or funcdiff.hvp, got "
            f"{transform!r}. A function whose name says the method, such as jacobian_forward, chooses nothing."
        )
    return Explanation(found.plan, found.key is not None)
