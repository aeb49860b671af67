"""Prepared derivatives: the same numbers, fewer operations, and no stale answer."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import grad, jacrev, vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff import Prepared, prepare


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def network(outputs=3):
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


X = torch.linspace(-1, 1, 5, dtype=torch.float64)
ROWS = torch.linspace(-1, 1, 20, dtype=torch.float64).view(4, 5)

DERIVATIVES = {
    "jacobian": (fd.jacobian(network()), (X,)),
    "vmap of a jacobian": (vmap(fd.jacobian_forward(network())), (ROWS,)),
    "batch_hessian": (fd.batch_hessian(network()), (ROWS,)),
    "torch.func.hessian": (torch.func.hessian(network()), (X,)),
    "laplacian": (fd.laplacian(network()), (X,)),
    "hvp": (None, (X, X**2)),
    "gradient": (grad(lambda x: x.sin().sum()), (X,)),
    "pytrees": (fd.jacobian(lambda d: {"y": d["a"] * d["b"]}), ({"a": X, "b": X**2},)),
    "parameters": (jacrev(lambda w, x: (w @ x).tanh()), (ROWS, X)),
    "convolution": (fd.jacobian(nn.Conv1d(1, 2, 3).double()), (X[None],)),
    "no derivative": (lambda x: (x + 1, x * 2), (X,)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_fresh_arguments_give_what_the_function_gives(name):
    function, args = DERIVATIVES[name]
    if name == "hvp":
        model = network(1)

        def function(x, v):
            return fd.hvp(lambda x: model(x).sum(), (x,), (v,))

    prepared = prepare(function, *args)
    others = torch.utils._pytree.tree_map(lambda x: x * 0.7 - 0.1, args)
    assert_close(prepared(*others), function(*others), rtol=1e-12, atol=1e-12)
    before, after = prepared.operations
    assert after <= before


def test_a_product_with_ones_is_left_out():
    prepared = prepare(lambda x, v: fd.hvp(lambda x: x.sin().sum(), (x,), (v,)), X, X)
    assert prepared.operations[1] == 3  # v * -sin(x)


def test_the_code_runs():
    weight = torch.randn(2, 5, dtype=torch.float64)
    prepared = prepare(fd.jacobian(lambda x: (weight @ x).tanh()), X)
    held = dict(prepared.held)
    space = {"torch": torch, "aten": torch.ops.aten, "device": torch.device}
    exec(prepared.code, space)
    (run,) = [value for key, value in space.items() if callable(value) and key not in ("torch", "aten", "device")]
    assert_close(run(X, **held)[0], prepared(X))
    assert "weight" in held


@pytest.mark.parametrize(
    "other", [X[:4], X.float(), X[None], X.clone().requires_grad_()], ids=["shape", "dtype", "axes", "gradient"]
)
def test_arguments_of_another_kind_are_refused_or_prepared_anew(other):
    square = fd.jacobian(lambda x: x**2)
    with pytest.raises(RuntimeError, match="was prepared, float64"):
        prepare(square, X.detach())(other)
    assert_close(prepare(square, X.detach(), again=True)(other), square(other))


def test_another_number_or_structure_is_refused():
    prepared = prepare(lambda x, p: x * p, X, 2.0)
    with pytest.raises(RuntimeError, match="was prepared, "):
        prepared(X, 3.0)
    with pytest.raises(RuntimeError, match="was prepared, "):
        prepared((X, 2.0))


class Base:
    shift = 0.0


class Slotted:
    __slots__ = "bias", "extra"

    def __init__(self):
        self.bias = 0.0


class Config(Base):
    scale = 2.0

    def __init__(self):
        self.array = np.ones(2)
        self.names = {"a"}
        self.slotted = Slotted()
        self.square = torch.arange(9, dtype=torch.float64).reshape(3, 3)


SCALE = torch.tensor(2.0)


def test_a_write_into_a_held_tensor_is_seen():
    model = network().requires_grad_(False)
    prepared = prepare(fd.jacobian(model), X)
    model[0].weight.mul_(2)
    assert_close(prepared(X), fd.jacobian(model)(X))


def test_what_a_recurrent_layer_writes_anew_is_no_change():
    layer = nn.RNN(5, 3).double().eval()
    weight = layer.weight_ih_l0.detach()
    derivative = jacrev(lambda weight: torch.func.functional_call(layer, {"weight_ih_l0": weight}, (ROWS,))[0])
    prepared = prepare(derivative, weight)
    expected = derivative(weight + 1)  # writes its lists of weights
    assert_close(prepared(weight + 1), expected)


def replaced_parameter(model, config, extra):
    model[0].weight = nn.Parameter(model[0].weight * 2)


def replaced_data(model, config, extra):
    model[0].weight.data = model[0].weight.data * 2


def replaced_layer(model, config, extra):
    model[1] = nn.ReLU()


def another_mode(model, config, extra):
    model[1].train(not model[1].training)


def a_hook(model, config, extra):
    model[0].register_forward_hook(lambda *args: args[-1] * 2)


def another_attribute(model, config, extra):
    config.scale = 3.0


def a_longer_list(model, config, extra):
    extra.append(torch.ones(()))


def another_item(model, config, extra):
    extra[0] = torch.ones(())


def a_number_of_an_array(model, config, extra):
    config.array[0] = 2.0


def a_member_of_a_set(model, config, extra):
    config.names.add("b")


def an_attribute_of_a_base_class(model, config, extra):
    Base.shift = 1.0


def a_slot(model, config, extra):
    config.slotted.bias = 1.0


def a_slot_that_was_empty(model, config, extra):
    config.slotted.extra = 1.0


def turned_in_memory(model, config, extra):
    config.square.t_()


CHANGES = [
    *(a_number_of_an_array, a_member_of_a_set, an_attribute_of_a_base_class, turned_in_memory),
    *(a_slot, a_slot_that_was_empty),
    *(replaced_parameter, replaced_data, replaced_layer, another_mode, a_hook, another_attribute),
    *(a_longer_list, another_item),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_since_is_refused(change, monkeypatch):
    monkeypatch.setattr(Base, "shift", 0.0)
    model, config, extra = network(), Config(), [torch.zeros((), dtype=torch.float64)]

    def func(x):
        factor = config.scale + config.shift + config.array[0] + len(config.names)
        bias = config.slotted.bias + getattr(config.slotted, "extra", 0.0)
        return (model(x) * factor + sum(extra) + bias) @ config.square

    prepared = prepare(fd.jacobian(func), X)
    prepared(X)
    change(model, config, extra)
    with pytest.raises(RuntimeError, match="Prepare it again"):
        prepared(X)


def test_a_global_or_a_variable_bound_anew_is_refused(monkeypatch):
    factor = torch.tensor(3.0)
    prepared = prepare(fd.jacobian(lambda x: x * SCALE * factor), X)
    prepared(X)
    factor = torch.tensor(4.0)
    with pytest.raises(RuntimeError, match="factor has been replaced"):
        prepared(X)
    prepared = prepare(fd.jacobian(lambda x: x * SCALE), X)
    monkeypatch.setitem(globals(), "SCALE", torch.tensor(5.0))
    with pytest.raises(RuntimeError, match="SCALE has been replaced"):
        prepared(X)


BUFFER = torch.zeros(5, dtype=torch.float64)


def branches(x):
    return x.sin() if x.sum() > 0 else x.cos()


def makes_a_number(x):
    return x * x.max().item()


def makes_a_list(x):
    return x * max(x.tolist())


def goes_through_numpy(x):
    return x * torch.from_numpy(BUFFER.numpy() + 1)


def selects(x):
    return x[x > 0].sum() * x


def drops(x):
    return nn.functional.dropout(x, 0.5)


def writes_into_what_it_holds(x):
    BUFFER.add_(x.detach())
    return x * BUFFER


def writes_into_its_argument(x):
    x.mul_(2)
    return x * 1


def reads_memory(x):
    return x[1:].as_strided((2, 2), (1, 2)).sin()


BAD = [
    branches,
    makes_a_number,
    makes_a_list,
    goes_through_numpy,
    selects,
    drops,
    writes_into_what_it_holds,
    writes_into_its_argument,
    reads_memory,
]


@pytest.mark.parametrize("func", BAD)
def test_what_may_do_something_else_is_refused_when_prepared(func):
    with pytest.raises(RuntimeError, match="cannot prepare a function that"):
        prepare(func, X)


def test_a_counter_is_found_by_the_second_point():
    calls = []

    def func(x):
        calls.append(1)
        return x * len(calls)

    with pytest.raises(RuntimeError, match="cannot prepare"):
        prepare(func, X)


def test_training_through_a_prepared_laplacian_is_training_through_the_laplacian():
    def losses(prepared):
        torch.manual_seed(1)
        model = network(1)
        optimiser = torch.optim.SGD(model.parameters(), 0.01)
        laplacians = vmap(fd.laplacian(model))
        if prepared:
            laplacians = prepare(laplacians, ROWS)
        found = []
        for _ in range(100):
            loss = (laplacians(ROWS) - 1).pow(2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            found.append(loss.detach())
        return torch.stack(found)

    assert_close(losses(True), losses(False), rtol=1e-9, atol=1e-9)


def test_an_intended_detach_stays_one():
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def func(x):
        return (weight.detach() * weight * x).sum()

    prepared = prepare(fd.jacobian(func), X)
    expected, found = (torch.autograd.grad(f(X).sum(), weight)[0] for f in (fd.jacobian(func), prepared))
    assert_close(found, expected)


def test_results_belong_to_the_caller():
    weight = torch.eye(5, dtype=torch.float64)
    prepared = prepare(fd.jacobian(lambda x: weight @ x), X)
    prepared(X).zero_()
    assert_close(weight, torch.eye(5, dtype=torch.float64))
    assert_close(prepared(X), weight)


def test_inside_transforms_the_function_itself_is_called():
    square = fd.jacobian(lambda x: x**3)
    prepared = prepare(square, X)
    assert_close(vmap(prepared)(ROWS), vmap(square)(ROWS))
    assert_close(jacrev(prepared)(X), jacrev(square)(X))


def test_the_compiler_takes_it_as_one_graph():
    prepared = prepare(fd.jacobian(network().requires_grad_(False)), X)
    assert_close(torch.compile(prepared, fullgraph=True, backend="eager")(2 * X), prepared(2 * X))


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # torch 2.11, of what it reads
def test_it_is_saved_and_loaded(tmp_path):
    prepared = prepare(fd.jacobian(network().requires_grad_(False)), X)
    prepared.save(tmp_path / "jacobian.pt2")
    assert_close(Prepared.load(tmp_path / "jacobian.pt2")(2 * X), prepared(2 * X))


def test_threads_share_it():
    prepared = prepare(fd.batch_hessian(network().requires_grad_(False)), ROWS, again=True)
    expected = {n: prepared(ROWS[:n]) for n in (2, 3)}
    found = {}

    def work(n, k):
        for _ in range(20):
            found[n, k] = prepared(ROWS[:n])

    threads = [threading.Thread(target=work, args=(n, k)) for n in (2, 3) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (n, _), result in found.items():
        assert_close(result, expected[n])


def test_what_is_left_is_explained():
    squares = prepare(fd.jacobian(lambda x: x**2), torch.ones(2))
    told = fd.explain(squares)
    total = sum(int(times) for _, times in told.table().rows)
    assert total == squares.operations[1]
    assert f"{squares.operations[0]} as traced" in repr(told)
    assert "<table" in told._repr_html_()


def test_a_check_of_torch_stays():
    prepared = prepare(fd.jacobian(torch.linalg.inv), torch.eye(2))
    assert "_linalg_check_errors" in prepared.code
    assert_close(prepared(2 * torch.eye(2)), fd.jacobian(torch.linalg.inv)(2 * torch.eye(2)))
    with pytest.raises(torch.linalg.LinAlgError, match="singular"):
        prepared(torch.zeros(2, 2))


@pytest.mark.parametrize("example", [ROWS, ROWS.T.contiguous().T, ROWS[:, :1].expand(4, 5)])
def test_another_layout_of_the_argument_is_the_same_numbers(example):
    prepared = prepare(fd.jacobian(lambda x: x.reshape(-1).sin()), example)
    for x in (2 * ROWS, (2 * ROWS).T.contiguous().T, ROWS[:1].expand(4, 5)):
        assert_close(prepared(x), fd.jacobian(lambda x: x.reshape(-1).sin())(x))


def into_what_is_held(x):
    sums = torch.ones(5, dtype=x.dtype) * BUFFER
    sums += x
    return sums.sin()


def into_other_numbers(x):
    whole = torch.zeros(2, 5)
    whole[:] = x * x
    return whole.sum(0)


@pytest.mark.parametrize("func", [into_what_is_held, into_other_numbers])
@pytest.mark.parametrize("again", [False, True])
def test_writes_into_tensors_of_its_own_are_recorded(func, again):
    x = X.clone().requires_grad_(again)
    prepared = prepare(fd.jacobian(func), x)
    assert_close(prepared(x * 0.7), fd.jacobian(func)(x * 0.7))
    if again:
        expected, found = (torch.autograd.grad(f(x).sum(), x)[0] for f in (fd.jacobian(func), prepared))
        assert_close(found, expected)
