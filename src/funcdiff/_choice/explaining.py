"""A plan in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from funcdiff._choice.costs import Cost
from funcdiff._choice.planning import Plan

if TYPE_CHECKING:
    from funcdiff.measure.tables import Table


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
        from funcdiff.measure.tables import Table, amount_of_flops, seconds  # recipes work without the measuring

        def row(name: str, cost: Cost | None, obstacle: str) -> tuple[str, ...]:
            amounts = (amount_of_flops(cost.flops), str(cost.elements), seconds(cost.seconds)) if cost else ("",) * 3
            return name, *amounts, obstacle or ("taken" if name == self.recipe else "")

        rows = tuple(row(c.name, c.cost, c.obstacle) for c in self.plan.candidates)
        s = self.plan.sketch
        counted = f"{s.inputs} inputs, {s.outputs} outputs, {amount_of_flops(s.flops)} a pass; times of a typical core"
        return Table(("recipe", "matrix FLOPs", "numbers written", "predicted", ""), rows, counted)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
