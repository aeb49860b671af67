"""Sentences about cost, made from the measurement that supports or contradicts them."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from html import escape
from math import inf
from typing import Any, ClassVar, Literal

from funcdiff._tables import multiple
from funcdiff.measure.ratios import CONFIDENCE, Ratio

Verdict = Literal["holds", "no difference", "undecided", "contradicted"]


@dataclass(frozen=True, repr=False)
class Claim:
    """What you expected about a cost, and what was measured.

    Attributes:
        expectation: What you expected, as a sentence without its full stop.
        verdict: "holds" if the measurement agrees, "contradicted" if it does not, "no difference" if the interval
            contains 1, and "undecided" if the interval contains the factor that you expected or both candidates were
            timed once.
        sentence: What was measured.
        finding: The same without the interval and the full stop, as the title of a figure.
    """

    kind: ClassVar[str] = "claim"
    expectation: str
    verdict: Verdict
    sentence: str
    finding: str

    @property
    def holds(self) -> bool:
        """Whether the measurement agrees with the expectation."""
        return self.verdict == "holds"

    def __repr__(self) -> str:
        """Return what was measured, as a sentence."""
        return self.sentence

    def _repr_html_(self) -> str:
        kind = self.verdict.replace(" ", "-")
        return f'<p class="funcdiff-claim funcdiff-claim-{kind}">{escape(self.sentence)}</p>'

    def to_dict(self) -> dict[str, Any]:
        """Return the claim as plain JSON values."""
        parts = asdict(self)
        del parts["finding"]  # a part of the sentence
        return {"kind": self.kind, "holds": self.holds, **parts}


def check_factor(by: float | None) -> None:
    """Raise if the factor that a claim expects is none."""
    if by is not None and by < 1:
        raise ValueError(f"expected by >= 1, a factor, or None for any difference, got {by}")


def claim_on_time(name: str, other: str, ratio: Ratio, by: float | None, once: Collection[str] = ()) -> Claim:
    """Judge whether a candidate is faster than another, by at least a factor if ``by`` is given.

    Args:
        name: The candidate expected to be faster.
        other: The candidate it is compared with.
        ratio: The other's time over the candidate's.
        by: The factor expected; None expects any.
        once: Which of the two were timed only once.
    """
    check_factor(by)
    factor = 1.0 if by is None else by
    least = "" if by is None else f"at least {multiple(by)}× "
    expectation = f"{name} is {least}faster than {other}"

    def judged(verdict: Verdict, finding: str, sentence: str) -> Claim:
        return Claim(expectation, verdict, f"{sentence}.", finding)

    faster, slower = f"{name} is {faster_by(ratio)} than {other}", f"{other} is {faster_by(ratio.inverse)} than {name}"
    if ratio.high == inf:
        same = f"This run cannot tell which of {name} and {other} is faster"
        return judged("undecided", same, f"{same}: each was timed once")
    if ratio.low > factor:
        return judged("holds", faster, f"{faster} {evidence(ratio, once)}")
    if ratio.low <= 1 <= ratio.high:
        same = f"This run shows no difference between {name} and {other}"
        over = f"time of {other} over time of {name} is {multiple(ratio.median)}"
        return judged("no difference", same, f"{same}: {over} {evidence(ratio, once)}")
    if ratio.high < 1:
        fact = f"in this run {other} was {faster_by(ratio.inverse)} {evidence(ratio.inverse, once)}"
        return judged("contradicted", slower, f"Expected {name} to be {least}faster; {fact}")
    if ratio.high < factor:
        fact = f"in this run it was {faster_by(ratio)} {evidence(ratio, once)}"
        return judged("contradicted", faster, f"Expected {name} to be {least}faster than {other}; {fact}")
    doubt = f"This run cannot tell whether it is {least}faster"
    return judged("undecided", faster, f"{faster} {evidence(ratio, once)}. {doubt}")


def faster_by(ratio: Ratio) -> str:
    """Write how many times faster: "2× faster"."""
    return f"{multiple(ratio.median)}× faster"


def evidence(ratio: Ratio, once: Collection[str]) -> str:
    """Write in parentheses what a ratio is based on: its interval, or which candidate was timed only once."""
    if once:
        return f"({' and '.join(once)} {'was' if len(once) == 1 else 'were'} timed once)"
    return f"({CONFIDENCE:.0%} interval {multiple(ratio.low)} to {multiple(ratio.high)}, n = {ratio.n})"
