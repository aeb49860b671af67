"""Sentences about cost say what was measured, no more."""

from itertools import product
from math import inf
from statistics import median

import pytest
import torch

from funcdiff.measure import Cost, Costs, Ratio, count
from funcdiff.measure.claims import claim_on_time
from funcdiff.measure.ratios import median_interval, paired_ratio

FASTER = Ratio(2.0, 1.8, 2.2, 25)
INTERVAL = "(99% interval 1.8 to 2.2, n = 25)"


@pytest.mark.parametrize(
    ("ratio", "by", "verdict", "sentence", "finding"),
    [
        (FASTER, None, "holds", f"a is 2× faster than b {INTERVAL}.", "a is 2× faster than b"),
        (FASTER, 1.5, "holds", f"a is 2× faster than b {INTERVAL}.", "a is 2× faster than b"),
        (
            Ratio(1.01, 0.97, 1.05, 25),
            None,
            "no difference",
            "This run shows no difference between a and b: "
            "time of b over time of a is 1.01 (99% interval 0.97 to 1.05, n = 25).",
            "This run shows no difference between a and b",
        ),
        (
            FASTER.inverse,
            None,
            "contradicted",
            f"Expected a to be faster; in this run b was 2× faster {INTERVAL}.",
            "b is 2× faster than a",
        ),
        (
            FASTER,
            3,
            "contradicted",
            f"Expected a to be at least 3× faster than b; in this run it was 2× faster {INTERVAL}.",
            "a is 2× faster than b",
        ),
        (
            FASTER,
            2,
            "undecided",
            f"a is 2× faster than b {INTERVAL}. This run cannot tell whether it is at least 2× faster.",
            "a is 2× faster than b",
        ),
    ],
)
def test_a_claim_on_time_is_judged_by_the_interval(ratio, by, verdict, sentence, finding):
    claim = claim_on_time("a", "b", ratio, by)
    assert claim.finding == finding
    assert (claim.verdict, claim.holds, repr(claim)) == (verdict, verdict == "holds", sentence)
    assert claim._repr_html_().startswith(f'<p class="funcdiff-claim funcdiff-claim-{verdict.replace(" ", "-")}">')


@pytest.mark.parametrize("factor", [0, -1, 0.5])
def test_a_factor_must_be_at_least_one(factor):
    with pytest.raises(ValueError, match="expected by >= 1"):
        claim_on_time("a", "b", FASTER, factor)
    with pytest.raises(ValueError, match="expected by >= 1"):
        Costs({"a": Cost(1, 1, 1, 1), "b": Cost(2, 1, 1, 1)}).claim("a", fewer_flops_than="b", by=factor)


@pytest.mark.parametrize("n", [8, 9, 12, 15])
def test_the_interval_holds_the_median_in_99_of_100_samples(n):
    # Whether each of n samples lies above the true median is a fair coin: count all outcomes.
    held = 0
    for above in product([-1.0, 1.0], repeat=n):
        low, high = median_interval(above)
        held += low <= 0 <= high
    assert held / 2**n >= 0.99
    low, high = median_interval(range(n))  # and the next narrower pair would not do
    inside = sum(int(low) + 1 <= sum(sides) <= n - int(low) - 1 for sides in product([0, 1], repeat=n))
    assert low + high == n - 1
    narrower = sum(int(low) + 2 <= sum(sides) <= n - int(low) - 2 for sides in product([0, 1], repeat=n))
    assert narrower / 2**n < 0.99 <= inside / 2**n


def test_a_ratio_and_its_inverse():
    a, b = [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0], [1.0] * 8
    ratio = paired_ratio(a, b)
    assert (ratio.median, ratio.low, ratio.high, ratio.n) == (median(a), 2.0, 16.0, 8)
    assert ratio.inverse == Ratio(1 / 9, 1 / 16, 1 / 2, 8)
    assert str(ratio) == "9 (2 to 16)"


def test_one_sample_is_set_against_the_range_of_the_other():
    assert paired_ratio([6.0], [1.0, 2.0, 3.0]) == Ratio(3.0, 2.0, 6.0, 1)


def test_two_that_were_cut_off_cannot_be_told_apart():
    ratio = paired_ratio([6.0], [2.0])
    assert ratio == Ratio(3.0, 0.0, inf, 1)
    assert ratio.to_dict() == {"median": 3.0, "low": 0.0, "high": None, "n": 1}
    assert ratio.inverse == Ratio(1 / 3, 0.0, inf, 1)
    claim = claim_on_time("a", "b", ratio, None, ["a", "b"])
    assert claim.verdict == "undecided"
    assert repr(claim) == "This run cannot tell which of a and b is faster: each was timed once."


def test_a_sentence_says_which_of_the_two_was_timed_once():
    claim = claim_on_time("a", "b", Ratio(3.0, 2.0, 6.0, 1), None, ["b"])
    assert repr(claim) == "a is 3× faster than b (b was timed once)."


COSTS = Costs({"a": Cost(100, 2, 64, 1000), "b": Cost(250, 2, 64, 2048), "none": Cost(0, 1, 64, 10)})


def test_a_claim_on_counts_states_both():
    claim = COSTS.claim("a", fewer_flops_than="b")
    assert repr(claim) == "a needs 2.5× fewer FLOPs than b: 100 FLOP against 250 FLOP."
    assert (claim.holds, claim.finding) == (True, "a needs 2.5× fewer FLOPs than b")
    claim = COSTS.claim("a", smaller_peak_than="b", by=2)
    assert repr(claim) == "a has a 2.05× lower peak than b: 1000 B against 2.00 KiB."
    assert repr(COSTS.claim("none", fewer_flops_than="b")) == "none needs fewer FLOPs than b: 0 FLOP against 250 FLOP."


def test_a_false_claim_on_counts_is_an_error_with_both_numbers():
    with pytest.raises(AssertionError, match=r"expected: b needs fewer FLOPs than a; counted: .*250 and 100"):
        COSTS.claim("b", fewer_flops_than="a")
    with pytest.raises(AssertionError, match=r"at least 3× fewer FLOPs than b; counted: .*100 and 250"):
        COSTS.claim("a", fewer_flops_than="b", by=3)
    with pytest.raises(AssertionError):
        COSTS.claim("a", fewer_flops_than="a")
    assert COSTS.claim("a", fewer_flops_than="b", by=2.5).holds


@pytest.mark.parametrize("others", [{}, {"fewer_flops_than": "b", "smaller_peak_than": "b"}])
def test_a_claim_on_counts_is_about_one_thing(others):
    with pytest.raises(ValueError, match="exactly one of"):
        COSTS.claim("a", **others)


def test_flops_that_are_only_a_lower_bound_bear_no_claim():
    a = torch.eye(3)
    costs = count({"solve": torch.linalg.inv, "product": lambda a: a @ a}, a)
    with pytest.raises(ValueError, match="linalg_inv_ex have no FLOP formula"):
        costs.claim("solve", fewer_flops_than="product")
    assert costs.claim("product", smaller_peak_than="solve").holds
