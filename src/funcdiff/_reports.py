"""The result of `check_derivatives`, as a table in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from funcdiff._judging import Verdict

_HEADERS = ("mode", "verdict", "error", "asymmetry", "detail")


@dataclass(frozen=True, repr=False)
class DerivativeReport:
    """Which modes are right on a function.

    Attributes:
        subject: the function, its sizes, and how much of it was looked at.
        verdicts: one a mode.
        responsible: the operations behind the wrong ones, where found.
        evaluations: how often the function was called.
        mutates: whether the function changes its arguments in place.
    """

    subject: str
    verdicts: tuple[Verdict, ...]
    responsible: tuple[str, ...] = ()
    evaluations: int = 0
    mutates: bool = False

    @property
    def ok(self) -> bool:
        """Some mode is right, none is wrong."""
        return bool(self.right) and not self.wrong

    @property
    def right(self) -> tuple[str, ...]:
        """The modes that are right."""
        return self._named("right")

    @property
    def wrong(self) -> tuple[str, ...]:
        """The modes that are wrong."""
        return self._named("wrong")

    def __getitem__(self, mode: str) -> Verdict:
        """The verdict on `mode`."""
        for verdict in self.verdicts:
            if verdict.mode == mode:
                return verdict
        raise KeyError(f"expected one of {', '.join(verdict.mode for verdict in self.verdicts)}; got {mode!r}")

    @property
    def advice(self) -> str:
        """What to do, in a line."""
        others = [(v.outcome, v.detail) for v in self.verdicts if v.outcome in ("refuses", "undecided")]
        parts = ["func changes its argument in place: clone it first"] if self.mutates else []
        if self.wrong:
            because = f" ({', '.join(self.responsible)})" if self.responsible else ""
            kinds = dict.fromkeys(verdict.mode.split("_")[0] for verdict in self.verdicts)
            use = [next((name for name in self.right if name.startswith(kind)), f"no {kind}") for kind in kinds]
            parts.append(f"avoid {', '.join(self.wrong)}{because}; right: {', '.join(use)}")
        if self.wrong and not any(name.startswith("jacobian") for name in self.right):
            parts.append(
                "does func hold part of its input constant (detach, no_grad, item), or is a custom backward wrong?"
            )
        parts += [
            f"{outcome}: {_shortened(detail.partition(' torch said:')[0], 200)}"
            for outcome, detail in dict.fromkeys(others)
        ]
        return "; ".join(parts) or "every mode that answers is right: choose by speed"

    def _named(self, outcome: str) -> tuple[str, ...]:
        return tuple(verdict.mode for verdict in self.verdicts if verdict.outcome == outcome)

    def _rows(self) -> list[tuple[str, ...]]:
        def number(value: float | None) -> str:
            return "" if value is None or value != value else f"{value:.1e}"

        return [(v.mode, v.outcome, number(v.error), number(v.asymmetry), v.detail) for v in self.verdicts]

    def __repr__(self) -> str:
        """The table as text."""
        rows = [_HEADERS, *((*row[:-1], _shortened(row[-1])) for row in self._rows())]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows]
        return "\n".join([self.subject, "", *table, "", f"advice: {self.advice}", f"evaluations: {self.evaluations}"])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in _HEADERS)
        body = "".join(
            f"<tr class='funcdiff-{row[1]}'>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
            for row in self._rows()
        )
        caption = f"<caption>{escape(self.subject)}</caption>"
        table = f"<table class='funcdiff'>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"{table}<p>{escape(self.advice)}</p>"


def _shortened(text: str, width: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
