"""A plan in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from funcdiff._automatic.planning import Candidate, Plan

if TYPE_CHECKING:
    from funcdiff._tables import Table


@dataclass(frozen=True, repr=False)
class Explanation:
    """What was chosen, and what every candidate would cost."""

    plan: Plan

    @property
    def recipe(self) -> str:
        """The name of the recipe that is taken."""
        return self.plan.usable[0]

    def table(self) -> Table:
        """The candidates, the one that is taken first."""
        # Here, as recipes work without the measuring.
        from funcdiff._tables import Table, amount_of_bytes, amount_of_flops, seconds

        within = any(c.chunk for c in self.plan.candidates)  # a budget

        def row(c: Candidate) -> tuple[str, ...]:
            cost = c.cost
            amounts = (amount_of_flops(cost.flops), str(cost.elements), seconds(cost.seconds)) if cost else ("",) * 3
            fit = (str(c.chunk or ""), amount_of_bytes(c.peak) if c.peak else "") if within else ()
            taken = f"taken; {c.check or 'not checked yet'}" if c.name == self.recipe else ""
            return c.name, *amounts, *fit, c.obstacle or taken

        rows = tuple(map(row, self.plan.candidates))
        s = self.plan.sketch
        counted = f"{s.inputs} inputs, {s.outputs} outputs, {amount_of_flops(s.flops)} a pass; times of a typical core"
        fit = ("at once", "peak") if within else ()
        return Table(("recipe", "matrix FLOPs", "numbers written", "predicted", *fit, ""), rows, counted)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
