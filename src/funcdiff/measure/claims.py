"""Sentences about cost, made from the measurement that bears them out or contradicts them."""

from dataclasses import asdict, dataclass
from html import escape
from math import inf
from typing import Any, ClassVar, Literal

from funcdiff._tables import multiple
from funcdiff.measure.ratios import CONFIDENCE, Ratio

Verdict = Literal["holds", "no difference", "undecided", "contradicted"]


@dataclass(frozen=True, repr=False)
class Claim:
    """An expectation about cost, and what the measurement said to it.

    Attributes:
        expectation: What was expected, as a sentence without its full stop.
        verdict: "holds"; "no difference" where the interval holds 1; "undecided" where it holds the factor that was
            expected, or both were cut off; "contradicted".
        sentence: What was measured.
    """

    kind: ClassVar[str] = "claim"
    expectation: str
    verdict: Verdict
    sentence: str

    @property
    def holds(self) -> bool:
        """Whether the measurement bears the expectation out."""
        return self.verdict == "holds"

    def __repr__(self) -> str:
        """Return what was measured, as a sentence."""
        return self.sentence

    def _repr_html_(self) -> str:
        kind = self.verdict.replace(" ", "-")
        return f'<p class="funcdiff-claim funcdiff-claim-{kind}">{escape(self.sentence)}</p>'

    def to_dict(self) -> dict[str, Any]:
        """Return the claim in plain JSON values."""
        return {"kind": self.kind, "holds": self.holds, **asdict(self)}


def check_factor(by: float | None) -> None:
    """Raise if the factor that a claim expects is none."""
    if by is not None and by < 1:
        raise ValueError(f"expected by >= 1, the factor between the two, or None for any; got {by}")


def claim_on_time(name: str, other: str, ratio: Ratio, by: float | None) -> Claim:
    """Judge whether a candidate is faster than another, at least so many times if ``by`` is given.

    Args:
        name: The candidate expected to be faster.
        other: The candidate it is held against.
        ratio: The other's time over the candidate's.
        by: The factor expected; None expects any.
    """
    check_factor(by)
    factor = 1.0 if by is None else by
    expectation = f"{name} is faster than {other}" + (f" at least {by:g} times" if by is not None else "")

    def measured(shown: Ratio) -> str:
        times, interval = f"{multiple(shown.median)} times", f"{multiple(shown.low)} to {multiple(shown.high)}"
        if shown.n == 1:
            return f"{times} ({interval}, one call of the one cut off)"
        return f"{times} ({CONFIDENCE:.0%} interval {interval}, n = {shown.n})"

    if ratio.high == inf:
        sentence = f"{name} and {other} were both cut off after one call: which is faster, this run cannot tell."
        return Claim(expectation, "undecided", sentence)
    if ratio.low > factor:
        return Claim(expectation, "holds", f"{name} is faster than {other}: {measured(ratio)}.")
    if ratio.low <= 1 <= ratio.high:
        return Claim(expectation, "no difference", f"No difference between {name} and {other}: {measured(ratio)}.")
    if ratio.high < 1:
        sentence = f"Contradicted by this run: {expectation}. In fact {other} is faster, {measured(ratio.inverse)}."
        return Claim(expectation, "contradicted", sentence)
    if ratio.high < factor:
        sentence = f"Contradicted by this run: {expectation}. It is faster, but only {measured(ratio)}."
        return Claim(expectation, "contradicted", sentence)
    sentence = f"{name} is faster than {other}: {measured(ratio)}; whether {factor:g} times, this run cannot tell."
    return Claim(expectation, "undecided", sentence)
