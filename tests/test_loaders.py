"""Operators over a loader: equal to those of all data at once, in the memory of one batch, loud where data change."""

import pytest
import torch
from custom_functions import OldCubed
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, TensorDataset

import funcdiff as fd
from funcdiff._automatic import planning
from funcdiff.measure import count

ROWS = torch.linspace(-1, 1, 53 * 3, dtype=torch.float64).cos().mul(9).sin().view(53, 3)
LABELS = torch.arange(53) % 4
WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)


def logits(w, rows):
    return torch.tanh(rows @ w.T) * 2


def gauss_newton(reduction):
    def of_batch(rows, labels):
        def loss(y):
            return F.cross_entropy(y, labels, reduction=reduction)

        return fd.gauss_newton_operator(lambda w: logits(w, rows), loss, WEIGHT)

    return of_batch


def loader(**options):
    return DataLoader(TensorDataset(ROWS, LABELS), batch_size=8, **options)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_unequal_batches_give_the_operator_of_all_data(reduction, shuffle):
    whole = gauss_newton(reduction)(ROWS, LABELS)
    operator = fd.over_batches(gauss_newton(reduction), loader(shuffle=shuffle), reduction=reduction)
    axes = torch.eye(12, dtype=torch.float64)
    assert operator.shape == (12, 12)
    assert_close(operator @ axes, whole @ axes)
    assert_close(operator(WEIGHT), whole(WEIGHT))
    assert_close(operator.T @ axes[0], whole @ axes[0])


def test_batches_of_one_shape_share_a_plan(monkeypatch):
    operator = fd.over_batches(gauss_newton("mean"), list(zip(ROWS.split(8), LABELS.split(8), strict=True)))
    made, make = [], planning.make
    monkeypatch.setattr(planning, "make", lambda *args, **options: made.append(args) or make(*args, **options))
    fd.clear_plans()
    for _ in range(2):
        operator(WEIGHT)
    assert len(made) == 2 * 2  # for the model and the loss, on the first batch and on the smaller last one


def test_many_products_are_one_pass():
    passes = []

    class Counted:
        def __iter__(self):
            passes.append(1)
            return iter(loader())

    operator = fd.over_batches(gauss_newton("mean"), Counted())
    made = len(passes)
    operator @ torch.eye(12, dtype=torch.float64)
    assert len(passes) == made + 1


def test_estimates_and_scipy_take_it():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    operator = fd.over_batches(gauss_newton("mean"), loader())
    matrix = gauss_newton("mean")(ROWS, LABELS) @ torch.eye(12, dtype=torch.float64)
    assert_close(fd.trace_estimate(operator).value, matrix.trace())
    largest = linalg.eigsh(operator, k=1, return_eigenvectors=False)
    assert_close(torch.from_numpy(largest), torch.linalg.eigvalsh(matrix)[-1:])


def test_the_memory_is_that_of_one_batch():
    rows = torch.ones(512, 64, dtype=torch.float64)

    def of_rows(rows):
        return fd.hvp_operator(lambda w: torch.tanh(rows @ w).square().mean(), w)

    w = torch.linspace(-1, 1, 64, dtype=torch.float64)
    few, many = (fd.over_batches(of_rows, rows[:size].split(64)) for size in (128, 512))
    for operator in (few, many):
        operator(w)  # plans are made
    peaks = count({"few": few, "many": many}, w)
    assert peaks["many"].peak_bytes <= 1.1 * peaks["few"].peak_bytes


def test_a_pass_computes_what_a_single_product_computes():
    layers = [torch.nn.Linear(3, 9), torch.nn.Tanh(), torch.nn.Linear(9, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4)]
    func, parameters = fd.module_function(torch.nn.Sequential(*layers).double())
    rows, labels = ROWS[:48], LABELS[:48]

    def operator(rows, labels):
        return fd.gauss_newton_operator(lambda p: func(p, rows), lambda y: F.cross_entropy(y, labels), parameters)

    def product(v):
        model, loss = lambda p: func(p, rows), lambda y: F.cross_entropy(y, labels)
        return fd.gauss_newton_product(model, loss, (parameters,), (v,))

    batch = fd.over_batches(operator, [(rows, labels)])
    ways = {"product": product, "batch": batch, "operator": lambda v: operator(rows, labels)(v)}
    for way in ways.values():
        way(parameters)  # plans are made
    costs = count(ways, parameters)
    sums = 2 * 2 * 48 * (3 + 1)  # over the data, which say whether they are those of the first pass
    assert costs["batch"].flops - sums == costs["product"].flops < costs["operator"].flops
    assert costs["product"].peak_bytes < costs["operator"].peak_bytes


@pytest.mark.parametrize("verify", [True, False])
def test_a_model_without_forward_mode_is_multiplied_by_backward_passes(verify):
    def of_batch(rows, labels):
        def loss(y):
            return F.cross_entropy(y, labels)

        return fd.gauss_newton_operator(lambda w: OldCubed.apply(rows @ w.T), loss, WEIGHT, verify=verify)

    operator, whole = fd.over_batches(of_batch, loader()), of_batch(ROWS, LABELS)
    axes = torch.eye(12, dtype=torch.float64)
    assert_close(operator(WEIGHT), whole(WEIGHT))
    assert_close(operator @ axes, whole @ axes)


def test_a_sampled_fisher_is_one_matrix_also_in_a_pass():
    made = []

    def fisher(rows, _):
        generator = torch.Generator().manual_seed(5)
        made.append(
            fd.fisher_operator(
                lambda w: logits(w, rows), WEIGHT, likelihood="categorical", samples=3, generator=generator
            )
        )
        return made[-1]

    operator = fd.over_batches(fisher, [(ROWS, LABELS)], reduction="sum")
    axes = torch.eye(12, dtype=torch.float64)
    matrix = operator @ axes
    assert_close(matrix, matrix.T)
    assert_close(matrix, fisher(ROWS, LABELS) @ axes)  # with the labels that the same seed gives
    assert torch.equal(made[1] @ axes, made[1] @ axes)
    assert_close(made[1](WEIGHT), made[1].T(WEIGHT))


def test_progress_is_shown_if_asked_for(capsys):
    fd.over_batches(gauss_newton("mean"), loader())(WEIGHT)
    assert not capsys.readouterr().err
    fd.over_batches(gauss_newton("mean"), loader(), progress=True)(WEIGHT)
    assert "batches" in capsys.readouterr().err


class Flipped(Dataset):
    """Rows that are turned round at random."""

    def __len__(self):
        return 53

    def __getitem__(self, i):
        return ROWS[i].flip(0) if torch.rand(()) > 0.5 else ROWS[i], LABELS[i]


@pytest.mark.parametrize(
    "data", [DataLoader(Flipped(), batch_size=8), loader(shuffle=True, drop_last=True)], ids=["augmented", "drop_last"]
)
def test_data_that_change_from_pass_to_pass_are_refused(data):
    operator = fd.over_batches(gauss_newton("mean"), data)

    def three_products():
        for seed in range(3):
            torch.manual_seed(seed)
            operator(WEIGHT)

    with torch.random.fork_rng(), pytest.raises(RuntimeError, match="the same data in every pass"):
        three_products()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fd.over_batches(gauss_newton("mean"), iter(loader())), TypeError, "empty after one pass"),
        (lambda: fd.over_batches(gauss_newton("mean"), []), ValueError, "empty loader"),
        (lambda: fd.over_batches(gauss_newton("mean"), loader(), reduction="max"), ValueError, "reduction"),
        (lambda: fd.over_batches(lambda rows, labels: rows, loader()), TypeError, "return an operator"),
        (
            lambda: fd.over_batches(lambda r, y: fd.jacobian_operator(lambda w: logits(w, r), WEIGHT), loader())(
                WEIGHT
            ),
            ValueError,
            "operators of one shape",
        ),
    ],
)
def test_bad_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
