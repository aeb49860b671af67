"""Estimates over operators: their error bars cover the truth, they stop, and a generator repeats them."""

import pytest
import torch
from torch.testing import assert_close

import funcdiff as fd

N = 150
BASIS = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)).Q
SPECTRA = {
    "flat": torch.linspace(1, 3, N, dtype=torch.float64),
    "falling": torch.arange(1, N + 1, dtype=torch.float64) ** -2,
    "of a Hessian": torch.cat([torch.logspace(2, 0, 8).double(), torch.linspace(-0.05, 0.05, N - 8).double()]),
}


def matrix(name):
    return BASIS @ torch.diag(SPECTRA[name]) @ BASIS.T


def seeded(seed):
    return torch.Generator().manual_seed(seed)


OPTIONS = [
    {"products": 36},
    {"products": 99},
    {"products": 60, "method": "hutchinson"},
    {"products": 120, "tolerance": 0.1},
]


@pytest.mark.filterwarnings("ignore:the relative error:RuntimeWarning")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_the_error_bar_of_a_trace_covers_the_truth_95_times_of_100(name, options):
    a, true = matrix(name), SPECTRA[name].sum()
    found = [fd.trace_estimate(a, generator=seeded(seed), **options) for seed in range(200)]
    covered = sum(bool((each.value - true).abs() <= each.error) for each in found)
    # 95 of 100 or more; of 200 draws with this probability, fewer than 184 are seen once in 100.
    assert covered >= 184
    assert all(each.products <= options["products"] for each in found)
    assert sum(each.error for each in found) / 200 < 0.9 * true.abs()  # and says something


@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_the_error_bars_of_a_diagonal_cover_the_truth_95_times_of_100(name, options):
    a = matrix(name)
    found = [fd.diagonal_estimate(a, generator=seeded(seed), **options) for seed in range(20)]
    covered = torch.stack([(each.value - a.diagonal()).abs() <= each.error for each in found])
    assert covered.double().mean() >= 0.95


def test_the_reduced_variance_pays_where_the_spectrum_falls():
    a, true = matrix("falling"), SPECTRA["falling"].sum()

    def spread(method):
        found = [fd.trace_estimate(a, products=99, method=method, generator=seeded(seed)) for seed in range(20)]
        return torch.stack([each.value - true for each in found]).square().mean().sqrt()

    assert spread("hutch++") < spread("hutchinson") / 20


def test_it_stops_at_a_tolerance_or_warns():
    a = matrix("flat")
    loose = fd.trace_estimate(a, tolerance=0.1, generator=seeded(0))
    assert loose.products == 10
    assert loose.error <= 0.1 * loose.value
    with pytest.warns(RuntimeWarning, match=r"above the tolerance of 1e-05\. .* such as products=\d+\."):
        fd.trace_estimate(a, tolerance=1e-5, products=60, generator=seeded(0))


def test_few_rows_are_multiplied_exactly():
    a = torch.tensor([[2.0, 1.0], [1.0, -3.0]], dtype=torch.float64)
    assert_close(fd.trace_estimate(a).value, torch.tensor(-1.0, dtype=torch.float64))
    assert_close(fd.diagonal_estimate(a).value, a.diagonal())


def test_it_takes_any_operator():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    a = matrix("of a Hessian")

    def quadratic(x):
        return x @ a @ x / 2

    operator = fd.hvp_operator(quadratic, torch.zeros(N, dtype=torch.float64))
    estimates = [
        fd.trace_estimate(each, products=60, generator=seeded(3)).value
        for each in (a, operator, linalg.aslinearoperator(a.numpy()))
    ]
    assert_close(estimates[1], estimates[0])
    assert_close(estimates[2], estimates[0])


def test_a_nonsymmetric_matrix_has_its_diagonal():
    a = torch.randn(N, N, generator=seeded(4), dtype=torch.float64)
    for estimate, true in ((fd.trace_estimate, a.trace()), (fd.diagonal_estimate, a.diagonal())):
        found = [estimate(a, generator=seeded(seed), products=90) for seed in range(20)]
        covered = torch.stack([(each.value - true).abs() <= each.error for each in found])
        assert covered.double().mean() >= 0.9


@pytest.mark.parametrize("estimate", [fd.trace_estimate, fd.diagonal_estimate])
def test_a_generator_repeats_an_estimate_and_leaves_the_global_one(estimate):
    before = torch.get_rng_state()
    first, second = (estimate(matrix("flat"), products=60, generator=seeded(1)).value for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_the_spectral_density_and_traces_of_functions_cover_the_truth():
    a, values = matrix("flat"), SPECTRA["flat"]
    at = torch.linspace(0.8, 3.2, 13, dtype=torch.float64)
    width = 0.2
    true = torch.exp(-(((at[:, None] - values) / width) ** 2) / 2).mean(1) / (width * (2 * torch.pi) ** 0.5)
    covered, logarithms = [], 0
    for seed in range(100):
        density = fd.spectral_density(a, generator=seeded(seed))
        assert_close(density.weights.sum(1), torch.ones(10, dtype=torch.float64))
        found = density.density(at, width)
        covered.append((found.value - true).abs() <= found.error)
        trace = density.trace(torch.log)
        logarithms += bool((trace.value - values.log().sum()).abs() <= trace.error)
    assert torch.stack(covered).double().mean() >= 0.95
    assert logarithms >= 91  # fewer are seen once in 100 where 95 are covered


def test_the_ends_of_the_spectrum_are_found():
    density = fd.spectral_density(matrix("of a Hessian"), generator=seeded(0))
    assert_close(density.points.amax(1), torch.full((10,), 100.0, dtype=torch.float64))
    assert (density.points.amin(1) > -0.0501).all()


def test_an_operator_of_low_rank_ends_the_steps():
    v = torch.linspace(-1, 1, N, dtype=torch.float64)
    density = fd.spectral_density(torch.outer(v, v), generator=seeded(0))
    assert density.points.shape[1] <= 4
    trace = density.trace(torch.clone)
    assert (trace.value - v @ v).abs() <= trace.error


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fd.trace_estimate(torch.ones(3, 2)), ValueError, "square matrix.*operator.T @ operator"),
        (lambda: fd.trace_estimate(3.0), TypeError, "got a float"),
        (lambda: fd.trace_estimate(torch.eye(3), products=5), ValueError, "at least 30 products"),
        (lambda: fd.trace_estimate(torch.eye(3), method="xtrace"), ValueError, "hutch"),
        (lambda: fd.spectral_density(torch.eye(3), probes=1), ValueError, "3 probes"),
        (lambda: fd.spectral_density(torch.ones(9, 9).triu()), RuntimeError, "symmetric"),
    ],
)
def test_bad_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
