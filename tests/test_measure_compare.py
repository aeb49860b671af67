"""Comparisons against a clock that only the candidates move, so that every number is known beforehand."""

import gc
import random

import pytest
import torch

from funcdiff.measure import Comparison, Timing, compare, environment, timing


class Clock:
    """Time that passes only while a candidate runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def candidate(self, *durations, result=0.0):
        """Return a candidate that takes these times, call by call, and the last one ever after."""
        remaining = list(durations)

        def run(*args):
            self.now += remaining.pop(0) if len(remaining) > 1 else remaining[0]
            return result

        return run


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(timing, "clock", fake)
    return fake


def test_medians_spread_and_ratios_are_exact(clock):
    # One first call, one to find the number of calls, then eight samples.
    slow = clock.candidate(1.0, 0.5, *[0.2, 0.4, 0.2, 0.4, 0.2, 0.4, 0.2, 0.4])
    fast = clock.candidate(0.25, 0.125, *[0.1] * 8)
    comparison = compare({"slow": slow, "fast": fast}, rounds=8)
    assert comparison["slow"].median == pytest.approx(0.3)
    assert comparison["slow"].iqr == pytest.approx(0.2)
    assert comparison["fast"].iqr == pytest.approx(0.0, abs=1e-12)
    assert (comparison["slow"].first, comparison["fast"].first) == (1.0, 0.25)
    assert (comparison["slow"].n, comparison["slow"].calls) == (8, 1)
    ratio = comparison.ratio("slow", "fast")
    assert (ratio.median, ratio.low, ratio.high, ratio.n) == pytest.approx((3.0, 2.0, 4.0, 8))
    assert comparison.fastest == "fast"


def test_ratios_are_paired_by_round(clock):
    drift = [0.02 * 2**i for i in range(8)]  # the machine slows down by 2 each round
    a, b = clock.candidate(1.0, 1.0, *drift), clock.candidate(1.0, 1.0, *[1.1 * t for t in drift])
    ratio = compare({"a": a, "b": b}, rounds=8).ratio("b", "a")
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1.1, 1.1, 1.1))


def test_a_sample_repeats_the_call_until_the_clock_resolves_it(clock):
    comparison = compare({"quick": clock.candidate(1e-6)}, rounds=8)
    assert comparison["quick"].calls * 1e-6 >= timing.SHORTEST_SAMPLE
    assert comparison["quick"].calls * 1e-6 < 2 * timing.SHORTEST_SAMPLE
    assert comparison["quick"].median == pytest.approx(1e-6)


@pytest.mark.parametrize(("duration", "expected"), [(3e-4, 3e-4), (3e-2, 6e-2)])
def test_a_short_call_is_not_charged_for_cold_caches(clock, duration, expected):
    """After another candidate a call takes twice as long; it is the untimed one, if there is one."""
    made = []

    def candidate(name):
        def run():
            clock.now += duration if made[-1:] == [name] else 2 * duration
            made.append(name)

        return run

    comparison = compare({name: candidate(name) for name in "ab"}, rounds=8, equal=False)
    for each in comparison.values():
        assert each.calls == 1
        assert max(each.times) == pytest.approx(expected)


def test_a_clock_that_stands_still_at_first_still_ends_in_a_sample(clock):
    comparison = compare({"free": clock.candidate(*[0.0] * 30, 1e-5)}, rounds=8)
    assert comparison["free"].median == pytest.approx(1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_stalls_in_a_tenth_of_the_samples_change_no_verdict(clock, seed):
    stalls = random.Random(seed)

    def stalled(duration):
        return [duration] * 4 + [duration * stalls.choices([1, 5], [9, 1])[0] for _ in range(25)]

    a, copy, b = (clock.candidate(*stalled(duration)) for duration in (0.020, 0.020, 0.030))
    comparison = compare({"a": a, "copy": copy, "b": b}, rounds=25, seed=seed)
    assert comparison.claim("a", faster_than="copy").verdict == "no difference"
    assert comparison.claim("a", faster_than="b").holds
    assert comparison.ratio("b", "a").median == pytest.approx(1.5)


def test_a_candidate_over_the_budget_is_cut_off_after_one_sample(clock):
    calls = []
    slow = clock.candidate(9.0, 3.0)
    comparison = compare({"fast": clock.candidate(0.5), "slow": lambda: calls.append(slow())}, budget=1, equal=False)
    assert len(calls) == 2
    assert comparison["slow"].cut_off
    assert (comparison["slow"].n, comparison["slow"].median, comparison["slow"].iqr) == (1, 3.0, None)
    assert not comparison["fast"].cut_off
    ratio = comparison.ratio("slow", "fast")
    assert (ratio.median, ratio.n) == (pytest.approx(6.0), 1)
    (row,) = (line for line in repr(comparison).splitlines() if line.startswith("slow"))
    assert row.split()[1:7] == ["3.00", "s", "(1", "sample)", "–", "6"]
    assert repr(comparison.claim("fast", faster_than="slow")) == "fast is 6× faster than slow (slow was timed once)."


@pytest.mark.parametrize("durations", [(60.0, 0.1), (0.1, 60.0, 0.1)])
def test_compiling_or_one_stall_cuts_nothing_off(clock, durations):
    assert not compare({"f": clock.candidate(*durations)}, rounds=8, budget=1)["f"].cut_off


def test_each_round_meets_every_candidate_once_in_an_order_of_its_own(clock):
    def orders(seed):
        met = []
        names = "abc"
        run = clock.candidate(0.02)
        candidates = {name: lambda name=name: (met.append(name), run())[1] for name in names}
        compare(candidates, rounds=8, seed=seed)
        rounds = ["".join(met[i : i + 3]) for i in range(len(met) - 24, len(met), 3)]
        assert all(sorted(order) == list(names) for order in rounds)
        return rounds

    assert len(set(orders(seed=0))) > 1
    assert orders(seed=0) == orders(seed=0) != orders(seed=1)


def test_conditions_are_set_meanwhile_and_restored():
    seen = set()
    before = torch.get_num_threads()
    comparison = compare({"f": lambda: seen.add((torch.get_num_threads(), gc.isenabled()))}, rounds=8, threads=2)
    assert seen == {(2, False)}
    assert (torch.get_num_threads(), gc.isenabled()) == (before, True)
    assert (comparison.threads, comparison.environment.threads) == (2, 2)
    assert "2 threads" in repr(comparison)


def test_conditions_are_restored_when_a_candidate_fails():
    before = torch.get_num_threads()
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            compare({"f": lambda: 1 / 0}, threads=before + 1)
        assert (torch.get_num_threads(), gc.isenabled()) == (before, False)
    finally:
        gc.enable()


X = torch.arange(4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("expected", "other", "words"),
    [
        (X, X + 1e-6, "they differ by up to 1e-06, where entries reach 3"),
        (X, X[:3], r"their shapes are \(4,\) and \(3,\)"),
        (X, X.float(), "their dtypes are torch.float64 and torch.float32"),
        ((X, X), (X,), "their structures are"),
        (X, torch.full((4,), torch.nan, dtype=torch.float64), "they differ by up to inf"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "they differ by up to 1"),
        ("yes", "no", "they are 'yes' and 'no'"),
        (X + 0j, X + 1j, "they differ by up to 1"),
    ],
)
def test_results_that_differ_are_an_error_that_names_the_two(expected, other, words):
    candidates = {"one": lambda: expected, "same": lambda: expected, "two": lambda: other}
    with pytest.raises(ValueError, match=f"expected 'one' and 'two' to give the same result, but {words}"):
        compare(candidates, rounds=8)
    assert compare(candidates, rounds=8, equal=False)["two"].n == 8


@pytest.mark.parametrize(
    ("expected", "other"),
    [
        (X, X + 1e-9),
        (X.float(), X.float() * (1 + 1e-4)),
        (torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0])),
        (torch.tensor([torch.inf, 1.0]), torch.tensor([torch.inf, 1.0])),
        (torch.empty(0), torch.empty(0)),
        ({"a": X, "b": [1, None]}, {"a": X, "b": [1, None]}),
        (torch.ones(3, device="meta"), torch.ones(3, device="meta")),
        (torch.tensor([1e-9, 1e3]), torch.tensor([-1e-9, 1e3])),
    ],
)
def test_results_that_differ_by_rounding_agree(expected, other):
    assert len(compare({"one": lambda: expected, "two": lambda: other}, rounds=8)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounds": 7}, "expected rounds >= 8"),
        ({"threads": 0}, "expected threads >= 1, got 0"),
        ({"budget": 0}, "expected a budget above 0 seconds"),
    ],
)
def test_options_out_of_range_are_refused_before_any_call(options, words):
    with pytest.raises(ValueError, match=words):
        compare({"f": lambda: pytest.fail("called")}, **options)


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="at least one candidate"):
        compare({})


def test_the_table_reads_as_text_and_as_html(clock):
    comparison = compare({"slow<b>": clock.candidate(0.02), "fast": clock.candidate(0.01)}, rounds=8)
    head, rule, first, second, *lines = repr(comparison).splitlines()
    caption = " ".join(lines)
    assert head.split("  ")[0] == "candidate"
    assert set(rule) == {"-", " "}
    assert first.split() == ["fast", "10.0", "ms", "0", "ns", "1", "–", "8", "10.0", "ms"]
    assert second.split()[:6] == ["slow<b>", "20.0", "ms", "0", "ns", "2"]
    assert second.split()[6:9] == ["2", "to", "2"]
    assert caption.startswith("A ratio is the median over rounds of the ratio within a round, so it is not the")
    assert f"Measured with 1 thread, torch {torch.__version__}, " in caption
    html = comparison._repr_html_()
    assert '<th scope="row">slow&lt;b&gt;</th>' in html
    assert f"<caption>{caption}</caption>" in html
    assert html.count("<tr>") == 3
    assert "20.0<span" in html  # the unit, apart


def test_the_finding_names_the_fastest_and_what_cannot_be_told_from_it():
    def finding(**times):
        timings = {name: Timing(tuple(values), 1, 1.0) for name, values in times.items()}
        return Comparison(timings, 1, (), environment()).finding

    one, two, five = [1.0] * 8, [2.0] * 8, [5.0] * 8
    even = [0.9, 1.1] * 4
    assert finding(a=one) == "a takes 1.00 s"
    assert finding(a=two, b=one) == "b is 2× faster than a"
    assert finding(a=five, b=one, c=two) == "b is 2× faster than c, the second fastest"
    assert finding(a=even, b=one) == "No difference between a and b"
    assert finding(a=even, b=one, c=five) == "No difference between a and b, the fastest"


def test_costs_add_their_columns():
    x = torch.ones(3, 4)
    comparison = compare({"product": lambda x: x @ x.mT}, x, rounds=8, costs=True)
    assert comparison.costs["product"].flops == 2 * 3 * 4 * 3
    assert "72 FLOP" in repr(comparison)
    assert comparison.arguments == ("float32[3, 4]",)


def test_a_comparison_is_a_mapping(clock):
    comparison = compare({"b": clock.candidate(0.1), "a": clock.candidate(0.2)}, rounds=8)
    assert isinstance(comparison, Comparison)
    assert list(comparison) == ["b", "a"]
    assert len(comparison) == 2


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_the_device_is_waited_for():
    device = torch.accelerator.current_accelerator()
    x = torch.randn(4096, 4096, device=device)
    product = compare({"matmul": lambda x: x @ x @ x @ x}, x, rounds=8)["matmul"]
    assert product.median > 1e-4  # 0.4 TFLOP: queueing it takes microseconds, doing it at least this long
