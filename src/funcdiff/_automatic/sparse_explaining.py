"""The passes of a sparse derivative in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass

from funcdiff._automatic.planning import Plan
from funcdiff._automatic.sparse_plan import SparsePlan
from funcdiff._tables import Shown, Table, amount_of_bytes, amount_of_flops, number_of, seconds


@dataclass(frozen=True, repr=False)
class SparseExplanation(Shown):
    """The passes of a sparse derivative, beside the dense one."""

    sparse: SparsePlan
    dense: Plan

    @property
    def recipe(self) -> str:
        """The one that is predicted to be faster in later calls, and fits."""
        best = self.dense.candidates[0]
        dense = best.cost.seconds if best.cost else float("inf")
        return f"{self.sparse.kind}_sparse" if self._seconds() < dense else self.sparse.kind

    def table(self) -> Table:
        """Both, in a row each."""
        plan, best = self.sparse, self.dense.candidates[0]
        (m, n), nnz = plan.pattern.shape, plan.pattern.nnz
        groups = plan.ways[0][1]
        modes = "products" if plan.kind == "hessian" else "forward"
        passes = f"{groups.forward} {modes}" if groups.forward else ""
        passes += f"{' + ' if passes and groups.reverse else ''}{groups.reverse} reverse" if groups.reverse else ""
        notes = [f"no rule for {', '.join(sorted(plan.unknown))}"] if plan.unknown else []
        notes.append(f"each result is checked: {plan.doubt}" if plan.doubt else "the first result is checked")
        item = plan.item
        rows = (
            (
                f"{plan.kind}_sparse",
                passes,
                str(nnz),
                amount_of_bytes(nnz * (item + 4)),
                seconds(self._seconds()),
                "; ".join(notes),
            ),
            (
                best.name,
                "",
                str(m * n),
                amount_of_bytes(m * n * item),
                seconds(best.cost.seconds) if best.cost else "",
                "" if self.recipe != plan.kind else f"faster here: use {plan.kind}",
            ),
        )
        sizes = f"{number_of(n, 'input')}, {number_of(m, 'output')}"
        run = amount_of_flops(plan.modes.sketch.flops)
        counted = f"{sizes}. {run} of matrix products in a run of func; times of a typical core"
        return Table(("recipe", "passes", "entries", "memory", "predicted", ""), rows, counted)

    def _seconds(self) -> float:
        return self.sparse.seconds(*self.sparse.ways[0])
