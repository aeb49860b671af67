"""Sweeps over sizes, with the times given."""

import math

import pytest
import torch

from funcdiff.measure import Comparison, Sweep, Timing, compare, environment, sweep, timing


def comparison_of(**times):
    """Return a comparison of these medians; each sample is given, or one time for all."""
    timings = {
        name: Timing(tuple(values) if isinstance(values, list) else (values,) * 8, 1, 1.0)
        for name, values in times.items()
    }
    return Comparison(timings, 1, (), environment())


def study_of(points):
    return Sweep("n", {size: comparison_of(**times) for size, times in points.items()})


def test_the_crossover_is_interpolated_on_logarithmic_axes():
    # a takes n^2, b takes 16 n: equal at 16.
    study = study_of({n: {"a": float(n**2), "b": 16.0 * n} for n in (2, 8, 32, 128)})
    crossover = study.crossover("a", "b")
    assert (crossover.below, crossover.above) == ("a", "b")
    assert (crossover.size, crossover.low, crossover.high) == pytest.approx((16, 16, 16))
    assert repr(crossover) == "b overtakes a at 16 (interval 16 to 16)."
    exchanged = study.crossover("b", "a")
    assert (exchanged.below, exchanged.above, exchanged.size) == ("a", "b", pytest.approx(16))


def test_the_interval_of_a_crossover_reaches_over_all_that_is_undecided():
    even = [0.5, 0.5, 0.5, 0.5, 2.0, 2.0, 2.0, 2.0]
    study = study_of({1: {"a": 0.25, "b": 1.0}, 4: {"a": even, "b": 1.0}, 16: {"a": 4.0, "b": 1.0}})
    crossover = study.crossover("a", "b")
    # The upper bound rises from 1/4 to 2 between 1 and 4, the lower from 1/2 to 4 between 4 and 16.
    low, high = 4 ** (math.log(4) / math.log(8)), 4 * 4 ** (math.log(2) / math.log(8))
    assert (crossover.low, crossover.high) == pytest.approx((low, high))
    assert low < crossover.size < high


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([0.5, 0.5], "a is faster at every size where this run shows a difference."),
        ([1.0, 2.0], "b is faster at every size where this run shows a difference."),
        ([1.0, 1.0], "This run shows no difference at any size."),
        ([0.5, 2.0, 0.5], "a and b overtake each other more than once."),
        ([0.5, 2.0, 0.5, 2.0], "a and b overtake each other more than once."),
    ],
)
def test_without_one_crossing_there_is_no_size(ratios, words):
    crossover = study_of({2**i: {"a": ratio, "b": 1.0} for i, ratio in enumerate(ratios)}).crossover("a", "b")
    assert repr(crossover) == words
    assert crossover.size is crossover.low is crossover.high is None
    assert crossover.to_dict()["size"] is None


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([0.5, 0.5], "a is the fastest at every size"),
        ([1.0, 2.0], "b is the fastest at 1 of 2 sizes"),
        ([1.0, 1.0], "This run shows no difference between the fastest methods"),
        ([0.5, 1.0, 2.0], "a is the fastest up to n = 1, b from 4"),
        ([0.5, 2.0, 0.5], "The fastest method changes with n: a, b, a"),
    ],
)
def test_the_finding_follows_the_run(ratios, words):
    assert study_of({2**i: {"a": ratio, "b": 1.0} for i, ratio in enumerate(ratios)}).finding == words


@pytest.fixture
def passing(monkeypatch):
    """Let a call's time be what it says it takes."""
    now = [0.0]
    monkeypatch.setattr(timing, "clock", lambda: now[0])

    def taking(duration):
        def run(x):
            now[0] += duration
            return x

        return run

    return taking


def test_a_candidate_over_the_budget_is_left_out_at_larger_sizes(passing):
    def make(n):
        return {"linear": passing(0.01 * n), "square": passing(0.01 * n**2)}, (torch.ones(n),)

    study = sweep(make, [2, 8, 16], label="inputs n", rounds=8, budget=0.5)
    assert [list(comparison) for comparison in study.values()] == [["linear", "square"]] * 2 + [["linear"]]
    assert study[8]["square"].cut_off
    assert study.names == ("linear", "square")
    assert study[8].arguments == ("float32[8]",)
    head, _, *lines = repr(study).splitlines()
    rows, caption = lines[:3], " ".join(lines[3:])
    assert head.split() == ["inputs", "n", "linear", "square"]
    assert [row.split() for row in rows] == [
        ["2", "*", "20.0", "ms", "40.0", "ms"],
        ["8", "*", "80.0", "ms", "640", "ms", "(1", "sample)"],
        ["16", "*", "160", "ms", "over", "budget"],
    ]
    assert caption.startswith("Median time of a call; * marks the fastest. Measured with 1 thread, ")
    assert study.crossover("linear", "square").above == "linear"


def test_a_sweep_ends_when_nothing_is_within_the_budget(passing):
    study = sweep(lambda n: ({"slow": passing(float(n))}, (1,)), [2, 4, 8], rounds=8, budget=1)
    assert list(study) == [2]


def test_a_sweep_keeps_quiet_unless_on_a_terminal(capfd):
    sweep(lambda n: ({"square": torch.square}, (torch.ones(n),)), [1, 2], rounds=8)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sizes", [[], [2, 2], [4, 2]])
def test_sizes_must_increase(sizes):
    with pytest.raises(ValueError, match="from small to large"):
        sweep(lambda n: pytest.fail("called"), sizes)


def test_results_are_checked_at_each_size():
    def make(n):
        return {"a": torch.sum, "b": lambda x: x.sum() + (n > 1)}, (torch.ones(n),)

    with pytest.raises(ValueError, match="'a' and 'b' to give the same result"):
        sweep(make, [1, 2], rounds=8)
    assert compare(*make(1)[:1], torch.ones(1), rounds=8).fastest in {"a", "b"}
