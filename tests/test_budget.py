"""A budget of bytes: kept by exact count and by the process's own peak, or refused with the number."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import funcdiff as fd
from _tools.bench.budget import detector, run_alone
from funcdiff._automatic import cache, planning
from funcdiff._automatic.budget import largest_chunk
from funcdiff._calling.directions import CountedChunk
from funcdiff._torch.counter import Counter
from funcdiff.measure import count
from funcdiff.problems import study_network

N = 48
MIX = torch.linspace(-1, 1, N * N, dtype=torch.float64).reshape(N, N)
TIMES = torch.linspace(0, 1, 100, dtype=torch.float64)
X = torch.linspace(-1, 1.3, N, dtype=torch.float64)
signal, signal_slope = detector(N, len(TIMES), dtype=torch.float64)


@pytest.fixture(autouse=True)
def forgetful():
    cache._plans.clear()


@pytest.mark.parametrize("budget", [5e5, 1e6, 3e6, 1e8])
def test_jacobian_keeps_the_budget(budget):
    transform = fd.jacobian(signal, chunk_size="auto", budget=budget)
    assert_close(transform(X), signal_slope(X), rtol=1e-12, atol=1e-14)
    assert count(transform, X).peak_bytes <= budget


def test_hessian_keeps_the_budget():
    x = X[:12]
    weight = MIX[:5, :12]
    bend = -torch.sin(weight @ x)[:, None, None] * weight[:, :, None] * weight[:, None, :]
    transform = fd.hessian(lambda x: torch.sin(weight @ x), chunk_size="auto", budget=20_000)
    assert_close(transform(x), bend, rtol=1e-12, atol=1e-14)
    assert count(transform, x).peak_bytes <= 20_000


@pytest.mark.parametrize("automatic", [False, True])
def test_batches_keep_the_budget(automatic):
    def func(x):
        return torch.stack([(x[0] * TIMES).sin().mean(), x[1] * (x[0] * TIMES).cos().mean()])

    rows = torch.linspace(-1, 1, 80, dtype=torch.float64).reshape(40, 2)
    phase = rows[:, :1] * TIMES
    slope = torch.zeros(40, 2, 2, dtype=torch.float64)
    slope[:, 0, 0] = (phase.cos() * TIMES).mean(1)
    slope[:, 1, 0] = -rows[:, 1] * (phase.sin() * TIMES).mean(1)
    slope[:, 1, 1] = phase.cos().mean(1)
    bend = torch.zeros(40, 2, 2, 2, dtype=torch.float64)
    bend[:, 0, 0, 0] = -(phase.sin() * TIMES**2).mean(1)
    bend[:, 1, 0, 0] = -rows[:, 1] * (phase.cos() * TIMES**2).mean(1)
    bend[:, 1, 0, 1] = bend[:, 1, 1, 0] = -(phase.sin() * TIMES).mean(1)
    for recipe, order, by_hand in [
        (fd.batch_jacobian, {"jacobian": fd.jacobian}, slope),
        (fd.batch_hessian, {"hessian": fd.hessian}, bend),
    ]:
        options = order if automatic else {}
        budget = count(recipe(func, **options), rows).peak_bytes // 4
        transform = recipe(func, chunk_size="auto", budget=budget, **options)
        assert_close(transform(rows), by_hand, rtol=1e-12, atol=1e-14)
        assert count(transform, rows).peak_bytes <= budget


def test_chunk_is_the_largest_even_one():
    budget = 1_000_000
    candidate = fd.explain(fd.jacobian(signal, chunk_size="auto", budget=budget), X).plan.candidates[0]
    recipe = getattr(fd, candidate.name)
    even = sorted({-(-N // parts) for parts in range(1, N + 1)})
    peaks = {chunk: count(recipe(signal, chunk_size=chunk), X).peak_bytes for chunk in even}
    assert candidate.chunk == max(chunk for chunk in even if peaks[chunk] <= budget) < N
    assert candidate.peak == peaks[candidate.chunk]


@pytest.mark.parametrize("chunk", [1, 2, 5, 7, 48, 100])
@pytest.mark.parametrize(
    "recipe", [fd.jacobian_reverse, fd.jacobian_forward, fd.jacobian_taylor, fd.jacobian_batched_grad]
)
@pytest.mark.parametrize("trainable", [False, True])
def test_first_and_last_chunk_tell_the_peak(recipe, chunk, trainable):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(N, 30), nn.Tanh(), nn.Linear(30, N)).double().requires_grad_(trainable)
    size = CountedChunk(chunk)
    with Counter() as counter:
        size.counter = counter
        recipe(network, chunk_size=size)(X)
    whole = count(recipe(network, chunk_size=chunk), X)
    assert (counter.peak, counter.flops) == (whole.peak_bytes, whole.flops)


@pytest.fixture
def poisoned_memory():
    """New memory holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_the_chunk_does_not_depend_on_what_memory_held_before(poisoned_memory):
    network = study_network((5, 256, 25)).requires_grad_(False)
    rows = torch.linspace(-1, 1, 320).reshape(64, 5)
    assert torch.empty(1).isnan()
    for recipe in (fd.batch_hessian, fd.batch_jacobian):
        for chunk in (16, 32):
            budget = count(recipe(network, chunk_size=chunk), rows).peak_bytes
            transform = recipe(network, chunk_size="auto", budget=budget)
            transform(rows)
            assert count(transform, rows).peak_bytes == budget


def test_growing_never_goes_over_the_budget_where_a_power_bounds_the_peak():
    counted = []

    def call(chunk):
        counted.append(2000 + 100 * chunk**2)
        return torch.empty(counted[-1], dtype=torch.uint8)

    chunk, _ = largest_chunk(60, 50_000, 2, call)
    assert chunk == 20  # 3 parts; 30 would take 92,000
    assert max(counted) <= 50_000
    assert len(counted) < 8


def test_planned_once(monkeypatch):
    transform, made = fd.jacobian(signal, chunk_size="auto", budget=1e6), []
    make = planning.make
    monkeypatch.setattr(planning, "make", lambda *args, **options: made.append(1) or make(*args, **options))
    for _ in range(3):
        transform(X)
    assert len(made) == 1


def test_what_cannot_fit_is_refused_with_the_number():
    with pytest.raises(MemoryError, match=r"needs 18,432 bytes, and the budget is 1,000 bytes\. Use products"):
        fd.jacobian(signal, chunk_size="auto", budget=1000)(X)
    with pytest.raises(MemoryError, match=r"no method fits into .* one at a time needs [0-9,]+ bytes, and the"):
        fd.jacobian(signal, chunk_size="auto", budget=20_000)(X)
    with pytest.raises(MemoryError, match="one at a time needs"):
        fd.batch_jacobian(torch.sin, chunk_size="auto", budget=10)(X[:, None])


def test_a_graph_that_every_chunk_leaves_behind_counts():
    weight = MIX.clone().requires_grad_()

    def func(x):
        return (torch.tanh(weight @ x)[:, None] * TIMES).sin().mean(1)

    least = min(count(recipe(func, chunk_size=1), X).peak_bytes for recipe in (fd.jacobian_taylor, fd.jacobian_forward))
    transform = fd.jacobian(func, chunk_size="auto", budget=1.5 * least)
    assert count(transform, X).peak_bytes <= 1.5 * least
    with pytest.raises(MemoryError, match="one at a time needs"):
        fd.jacobian(func, chunk_size="auto", budget=least / 20)(X)


def test_what_requires_grad_is_planned_apart():
    weight = MIX.clone()

    def func(x):
        return (torch.tanh(weight @ x)[:, None] * TIMES).sin().mean(1)

    budget = 2 * count(fd.jacobian_taylor(func, chunk_size=1), X).peak_bytes
    transform = fd.jacobian(func, chunk_size="auto", budget=budget)
    frozen = fd.explain(transform, X).plan.candidates[0]
    weight.requires_grad_()
    with torch.no_grad():
        assert fd.explain(transform, X).plan.candidates[0] == frozen
    with pytest.raises(MemoryError):
        fd.explain(transform, X)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chunk_size": "auto"}, ValueError, "expected a budget in bytes"),
        ({"budget": 100}, ValueError, 'expected chunk_size="auto" with a budget, got None'),
        ({"chunk_size": "auto", "budget": "1 GB"}, TypeError, "expected budget to be a number of bytes, got '1 GB'"),
        ({"chunk_size": "auto", "budget": 0}, ValueError, "positive number of bytes, got 0"),
        ({"chunk_size": "auto", "budget": float("nan")}, ValueError, "positive number of bytes, got nan"),
        ({"chunk_size": "all"}, TypeError, "expected chunk_size to be a positive int"),
    ],
)
@pytest.mark.parametrize("recipe", [fd.jacobian, fd.hessian, fd.batch_jacobian, fd.batch_hessian])
def test_options(recipe, options, error, message):
    with pytest.raises(error, match=message):
        recipe(torch.sin, **options)


@pytest.mark.parametrize(("recipe", "at"), [(fd.hessian, X), (fd.batch_hessian, X.expand(64, -1))])
def test_where_a_graph_takes_the_memory_the_message_says_how_to_be_without(recipe, at):
    network = nn.Sequential(nn.Linear(N, 200), nn.Tanh(), nn.Linear(200, 1)).double()
    with torch.no_grad():
        budget = 1.1 * count(recipe(network, chunk_size=1), at).peak_bytes
    transform = recipe(network, chunk_size="auto", budget=budget)
    with pytest.raises(MemoryError, match=r"requires_grad_\(False\) first, or .* torch\.no_grad\(\)\. Or use products"):
        transform(at)
    with torch.no_grad():
        without = transform(at)
    network.requires_grad_(False)
    assert_close(transform(at), without)


def test_an_explanation_of_a_batch_shows_the_chunk_and_its_peak():
    network = study_network((5, 64, 25)).requires_grad_(False)
    rows = torch.linspace(-1, 1, 320).reshape(64, 5)
    budget = count(fd.batch_hessian(network, chunk_size=16), rows).peak_bytes
    transform = fd.batch_hessian(network, chunk_size="auto", budget=budget)
    told = fd.explain(transform, rows)
    assert told.table().columns[-3:-1] == ("at once", "peak")
    best = told.plan.candidates[0]
    assert (best.chunk, best.peak) == (16, budget) == (best.chunk, count(transform, rows).peak_bytes)
    assert "at once" not in repr(fd.explain(fd.batch_hessian(network), rows))


def test_named_recipes_say_who_takes_a_budget():
    with pytest.raises(TypeError, match=r"got 'auto'\. Only functions that choose a method, such as jacobian"):
        fd.jacobian_reverse(torch.sin, chunk_size="auto")


def test_inside_a_transform_a_number_is_asked_for():
    inner = fd.jacobian(torch.sin, chunk_size="auto", budget=1e9)
    with pytest.raises(RuntimeError, match="not possible inside vmap"):
        torch.func.vmap(inner)(X[:, None])
    with pytest.raises(RuntimeError, match="not possible inside vmap"):
        torch.func.grad(lambda x: fd.batch_jacobian(torch.sin, chunk_size="auto", budget=1e9)(x).sum())(X[:, None])


@pytest.mark.slow
def test_the_process_keeps_the_budget_too():
    """A Jacobian that takes 10 GB at once, within 0.5 GB of what the process held before; it is checked there."""
    found = run_alone(512, 3300, 5e8)
    assert found["at_once"] > 10e9
    assert found["counted"] <= 5e8
    assert found["process"] <= 5e8


@pytest.mark.parametrize("budget", [30_000, 100_000, 250_000, 10**6])
def test_no_chunk_goes_over_the_budget_while_it_is_counted(budget):
    sizes = []

    def call(size):
        sizes.append(int(size))
        torch.zeros(int(size) * 1000)

    chunk, count = largest_chunk(96, budget, 1, call)
    assert 4000 * max(sizes) <= budget
    assert count.peak == 4000 * chunk


def test_one_row_that_needs_more_than_two_does_not_end_the_search():
    """Of one row alone another recipe is faster, which needs more memory."""
    network = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 4)).requires_grad_(False)
    rows = torch.linspace(-1, 1, 192).reshape(64, 3)
    peaks = {chunk: count(fd.batch_hessian(network, chunk_size=chunk), rows).peak_bytes for chunk in (1, 2, 4, 16)}
    assert peaks[1] > peaks[2] < peaks[4] < peaks[16]
    for chunk in (4, 16):
        transform = fd.batch_hessian(network, chunk_size="auto", budget=peaks[chunk])
        assert_close(transform(rows), fd.batch_hessian(network)(rows))
        assert count(transform, rows).peak_bytes == peaks[chunk]
    with pytest.raises(MemoryError, match="one at a time needs"):
        fd.batch_hessian(network, chunk_size="auto", budget=10_000)(rows)


def test_what_each_chunk_leaves_behind_is_not_held_while_it_is_counted():
    """Results with a graph: one row at a time leaves the most behind."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 4))
    rows = torch.linspace(-1, 1, 192).reshape(64, 3)
    peaks = {chunk: count(fd.batch_hessian(network, chunk_size=chunk), rows).peak_bytes for chunk in (1, 8, 16, 64)}
    assert peaks[1] > peaks[8] > peaks[16] < peaks[64]
    transform = fd.batch_hessian(network, chunk_size="auto", budget=peaks[16])
    assert_close(transform(rows), fd.batch_hessian(network)(rows))
    assert count(transform, rows).peak_bytes <= peaks[16]
    with pytest.raises(MemoryError, match="fewer than 8 at a time need more, and these need"):
        fd.batch_hessian(network, chunk_size="auto", budget=peaks[16] // 2)(rows)
