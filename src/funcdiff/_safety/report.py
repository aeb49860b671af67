"""The result of `check_derivatives`, as a table in a terminal and in a notebook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from funcdiff._safety.verdicts import Verdict
from funcdiff._tables import Table

AUTOMATIC = ("jacobian", "hessian", "hvp")  # to be advised before the recipes that they choose between


@dataclass(frozen=True, repr=False)
class DerivativeReport:
    """The result of `check_derivatives`: which methods are right on a function. `print()` shows it as a table.

    Attributes:
        subject: The function, its numbers of inputs and outputs, and how many directions were checked.
        verdicts: One verdict for each method.
        responsible: The torch operations that cause the errors, where they were found.
        evaluations: How often the function was called.
        mutates: Whether the function changes its arguments in place.
    """

    subject: str
    verdicts: tuple[Verdict, ...]
    responsible: tuple[str, ...] = ()
    evaluations: int = 0
    mutates: bool = False

    @property
    def ok(self) -> bool:
        """Whether some method is right and none is wrong."""
        return bool(self.right) and not self.wrong

    @property
    def right(self) -> tuple[str, ...]:
        """The names of the methods that are right."""
        return self._named("right")

    @property
    def wrong(self) -> tuple[str, ...]:
        """The names of the methods that are wrong."""
        return self._named("wrong")

    def __getitem__(self, mode: str) -> Verdict:
        """The verdict on the method of that name."""
        for verdict in self.verdicts:
            if verdict.mode == mode:
                return verdict
        raise KeyError(f"expected one of {', '.join(verdict.mode for verdict in self.verdicts)}; got {mode!r}")

    @property
    def advice(self) -> str:
        """What to do, in one line."""
        parts = ["func changes its argument in place: clone it first"] if self.mutates else []
        ordered = sorted(self.verdicts, key=lambda verdict: verdict.mode not in AUTOMATIC)
        right = {verdict.kind: verdict.mode for verdict in reversed(ordered) if verdict.outcome == "right"}
        if self.wrong:
            because = f" ({', '.join(self.responsible)})" if self.responsible else ""
            kinds = dict.fromkeys(verdict.kind for verdict in self.verdicts if verdict.outcome == "wrong")
            use = [right.get(kind, f"none of the {kind}") for kind in kinds]
            parts.append(f"avoid {', '.join(self.wrong)}{because}; right: {', '.join(use)}")
        if self.wrong and "jacobians" not in right:
            parts.append(
                "does func hold part of its input constant (detach, no_grad, item), or is a custom backward wrong?"
            )
        reasons: dict[tuple[str, str], list[str]] = {}
        for verdict in self.verdicts:
            if verdict.outcome in ("refuses", "undecided"):
                reasons.setdefault((verdict.outcome, verdict.detail), []).append(verdict.mode)
        for (outcome, detail), (first, *others) in reasons.items():
            more = f" and {len(others)} more" if others else ""
            parts.append(f"{outcome}: {first}{more}, {_shortened(detail.partition(' torch said:')[0])}")
        return "; ".join(parts) or "every recipe that answers is right: choose by speed"

    def _named(self, outcome: str) -> tuple[str, ...]:
        return tuple(verdict.mode for verdict in self.verdicts if verdict.outcome == outcome)

    @property
    def _table(self) -> Table:
        def number(value: float | None) -> str:
            return "" if value is None or math.isnan(value) else f"{value:.1e}"

        rows = ((v.mode, v.outcome, number(v.error), number(v.asymmetry)) for v in self.verdicts)
        return Table(("recipe", "verdict", "error", "asymmetry"), tuple(rows), self.subject)

    def __repr__(self) -> str:
        """The table as text."""
        return f"{self._table!r}\n\nadvice: {self.advice}\nevaluations: {self.evaluations}"

    def _repr_html_(self) -> str:
        return f"{self._table._repr_html_()}<p>{escape(self.advice)}</p>"


def _shortened(text: str, width: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
