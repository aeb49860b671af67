"""Exact counts against counts by hand: products of the weights, with the waste torch adds, and bytes."""

import gc
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.profiler import ProfilerActivity, profile

from funcdiff.measure import count

N, M, H, B = 3, 5, 7, 4  # inputs, outputs, hidden units, rows


def products(func, *args, of=N * M):
    """Return how many products with the weight a call does: multiply-adds over those of one product."""
    multiply_adds, odd = divmod(count(func, *args).flops, 2)
    assert odd == 0
    whole, rest = divmod(multiply_adds, of)
    assert rest == 0
    return whole


@pytest.fixture
def x():
    return torch.randn(N)


@pytest.fixture
def layer():
    weight = torch.randn(M, N)
    return lambda x: torch.tanh(weight @ x)


@pytest.fixture
def loss(layer):
    return lambda x: layer(x).sum()


def test_a_linear_map_by_hand():
    cost = count(nn.functional.linear, torch.ones(B, N), torch.ones(M, N))
    assert (cost.flops, cost.operations) == (2 * B * N * M, 1)
    assert cost.bytes_written == cost.peak_bytes == 4 * B * M


@pytest.mark.parametrize("gradient", [False, True])
def test_a_network_by_hand(gradient):
    net = nn.Sequential(nn.Linear(N, H), nn.Tanh(), nn.Linear(H, M), nn.Tanh()).requires_grad_(gradient)
    cost = count(net, torch.ones(B, N))
    assert (cost.flops, cost.operations) == (2 * B * (N * H + H * M), 4)
    assert cost.bytes_written == 4 * B * (H + H + M + M)
    # The graph keeps what the backward pass needs: the input of a linear layer and the output of a tanh.
    assert cost.peak_bytes == 4 * B * (H + M + M if gradient else H + H)


def test_jacobians_by_hand(x, layer):
    assert products(layer, x) == 1
    assert products(jacrev(layer), x) == 1 + M
    # Forward mode also multiplies x by the weight's zero tangent: 2 + n, not 1 + n.
    assert products(jacfwd(layer), x) == 2 + N


def test_hessians_by_hand(x, layer):
    # The reverse pass adds m products with the transposed weight; all get n tangents and a zero tangent.
    assert products(jacfwd(jacrev(layer)), x) == (1 + M) * (2 + N)
    # m n cotangents go back through each of the 1 + m products of the inner reverse pass.
    assert products(jacrev(jacrev(layer)), x) == (1 + M) * (1 + M * N)
    # m n cotangents go back through W x and through the product with the zero tangent; W e_j does not depend on x.
    assert products(jacrev(jacfwd(layer)), x) == (2 + N) + 2 * M * N
    # W x and 0 x have a value, n tangents and a zero tangent (0 x lacks one: the zero is a plain constant by then,
    # and its value is needed twice); W e_j is needed once.
    assert products(jacfwd(jacfwd(layer)), x) == 2 * (2 + N) + N


def test_products_of_the_hessian_by_hand(x, loss):
    v = torch.randn(N)
    # Forward and backward pass, each with a tangent and a zero tangent.
    assert products(lambda x: jvp(grad(loss), (x,), (v,))[1], x) == 6
    # Forward and backward pass, and both again.
    assert products(lambda x: vjp(grad(loss), x)[1](v), x) == 4
    # Value, tangent and zero tangent; back through the first and the last.
    assert products(grad(lambda x: jvp(loss, (x,), (v,))[1]), x) == 5


@pytest.mark.parametrize("rows", [1, B])
def test_a_network_under_vmap_costs_its_rows_times(rows):
    net = nn.Sequential(nn.Linear(N, H), nn.Tanh(), nn.Linear(H, M))
    x = torch.ones(rows, N)
    forward = N * H + H * M
    assert products(vmap(jacrev(net)), x, of=forward) == rows * (1 + M)
    assert products(vmap(jacfwd(net)), x, of=forward) == rows * (2 + N)


def test_parameters_by_hand():
    net = nn.Linear(N, M)
    parameters = dict(net.named_parameters())
    x = torch.ones(B, N)
    # One product forward, one for the weight's gradient: none for the input's, which nobody asked for.
    assert products(grad(lambda p: functional_call(net, p, x).sum()), parameters, of=B * N * M) == 2


@pytest.mark.parametrize(
    ("func", "shapes", "multiply_adds"),
    [
        (torch.dot, [(N,), (N,)], N),
        (torch.mv, [(M, N), (N,)], M * N),
        (torch.addmv, [(M,), (M, N), (N,)], M * N),
        (torch.mm, [(M, N), (N, H)], M * N * H),
        (torch.bmm, [(B, M, N), (B, N, H)], B * M * N * H),
        (torch.addbmm, [(M, H), (B, M, N), (B, N, H)], B * M * N * H),
        (torch.einsum, ["bi,oi->bo", (B, N), (M, N)], B * N * M),
        (nn.functional.conv1d, [(B, 6, 10), (8, 3, 3), None, 1, 1, 1, 2], B * 10 * 8 * 3 * 3),
        (nn.functional.scaled_dot_product_attention, [(B, 2, 6, 8)] * 3, B * 2 * 6 * 6 * 8 * 2),
    ],
)
def test_operations_by_hand(func, shapes, multiply_adds):
    args = [torch.ones(shape) if isinstance(shape, tuple) else shape for shape in shapes]
    assert count(func, *args).flops == 2 * multiply_adds
    with torch.inference_mode():
        assert count(func, *args).flops == 2 * multiply_adds


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_costs_the_same_forward_and_each_way_back(groups):
    weight, x = torch.ones(8, 6 // groups, 3), torch.ones(B, 6, 10)

    def loss(x, weight):
        return nn.functional.conv1d(x, weight, groups=groups).square().sum()

    forward = count(loss, x, weight).flops
    assert forward == 2 * B * 8 * 8 * (6 // groups) * 3
    assert count(grad(loss), x, weight).flops == 2 * forward
    assert count(grad(loss, argnums=(0, 1)), x, weight).flops == 3 * forward
    # vmap makes groups of the rows.
    rows = vmap(grad(loss, argnums=1), in_dims=(0, None))
    assert count(rows, x[:, None], weight).flops == 2 * forward


def test_attention_back_costs_what_the_formula_says():
    q = torch.ones(B, 2, 6, 8)
    forward = count(nn.functional.scaled_dot_product_attention, q, q, q).flops
    back = count(grad(lambda q: nn.functional.scaled_dot_product_attention(q, q, q).sum()), q).flops
    assert back == forward + forward * 5 // 2  # two products forward; five back, the scores being computed again


def test_what_has_no_formula_is_named():
    cost = count(torch.linalg.cholesky, torch.eye(3))
    assert cost.uncounted == ("linalg_cholesky_ex",)
    assert "≥ 0 FLOP" in repr(cost)
    assert count(torch.exp, torch.ones(3)).uncounted == ()


def test_views_cost_nothing():
    cost = count(lambda x: x.mT.unsqueeze(0).expand(2, -1, -1).detach()[0], torch.ones(3, 4))
    assert (cost.operations, cost.bytes_written, cost.peak_bytes) == (0, 0, 0)


def test_arguments_and_captured_tensors_are_not_held_but_the_result_is():
    big = torch.ones(1000)
    assert count(lambda x: (x * big).sum() + big[0], torch.ones(1000)).peak_bytes == 4000 + 4
    assert count(lambda x: x.mul_(2), torch.ones(10)).peak_bytes == 0
    assert count(lambda x: x.mul_(2), torch.ones(10)).bytes_written == 40


def test_what_is_freed_is_no_longer_held():
    def chain(x):
        for _ in range(10):
            x = x + 1
        return x

    cost = count(chain, torch.ones(100))
    assert (cost.operations, cost.bytes_written, cost.peak_bytes) == (10, 4000, 800)


def test_a_tensor_that_grows_is_held_at_its_size():
    def grow():
        return torch.add(torch.ones(100), 1, out=torch.empty(0))

    assert count(grow).peak_bytes == 800


def test_an_allocation_alone_writes_nothing():
    cost = count(lambda: torch.empty(5))
    assert (cost.operations, cost.bytes_written, cost.peak_bytes) == (0, 0, 20)


def study_c(device, width=1000):
    net = nn.Sequential(nn.Linear(5, width), nn.ELU(), nn.Linear(width, width), nn.ELU(), nn.Linear(width, 25))
    net = net.to(device).requires_grad_(False)
    transforms = {
        "jacfwd": jacfwd(net),
        "jacrev": jacrev(net),
        "forward over reverse": hessian(net),
        "forward over forward": jacfwd(jacfwd(net)),
        "reverse over forward": jacrev(jacfwd(net)),
        "reverse over reverse": jacrev(jacrev(net)),
    }
    return {name: vmap(transform) for name, transform in transforms.items()}


def test_the_network_study_is_counted_on_meta_tensors_without_being_done():
    costs = count(study_c("meta"), torch.empty(100, 5, device="meta"))
    forward = 2 * 100 * (5 * 1000 + 1000 * 1000 + 1000 * 25)
    gigaflops = {name: float(f"{cost.flops / 1e9:.3g}") for name, cost in costs.items()}
    assert gigaflops == {
        "jacfwd": 1.44,
        "jacrev": 5.36,
        "forward over reverse": 36.7,
        "forward over forward": 10.1,
        "reverse over forward": 180,
        "reverse over reverse": 659,
    }
    parameters = 4 * (5 * 1000 + 1000 + 1000 * 1000 + 1000 + 1000 * 25 + 25)
    mebibytes = {name: round((cost.peak_bytes + parameters) / 2**20) for name, cost in costs.items()}
    assert (mebibytes["jacrev"], mebibytes["forward over reverse"]) == (24, 267)
    assert mebibytes["reverse over reverse"] == 7183
    assert costs["jacfwd"].flops == (2 + 5) * forward
    assert costs["jacrev"].flops == (1 + 25) * forward
    assert count(study_c("meta"), torch.empty(100, 5, device="meta")) == costs


def profiled_peak(func, *args):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as run:
        result = func(*args)
    held = peak = 0
    for event in run.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    del result
    return peak


@pytest.mark.parametrize("name", study_c("meta"))
def test_the_peak_is_the_profilers_and_that_of_meta_tensors(name):
    func, x = study_c("cpu", width=40)[name], torch.randn(100, 5)
    cost = count(func, x)
    assert cost.peak_bytes == profiled_peak(func, x)
    assert cost == count(study_c("meta", width=40)[name], x.to("meta"))


def test_the_same_twice_with_reference_cycles_and_whether_or_not_collection_is_on():
    class Node:
        pass

    def cyclic(x):
        for _ in range(5):
            node = Node()
            node.itself, node.value = node, x.exp()
        return x

    x = torch.ones(100)
    first = count(cyclic, x)
    assert first.peak_bytes == 5 * 400
    gc.disable()
    try:
        assert count(cyclic, x) == first
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_failing_function_leaves_collection_on_and_its_error_alone():
    with pytest.raises(ZeroDivisionError):
        count(lambda: 1 / 0)
    assert gc.isenabled()


def test_a_compiled_function_is_refused():
    with pytest.raises(ValueError, match=r"before torch\.compile"):
        count(torch.compile(torch.exp, backend="eager"), torch.ones(3))
    with pytest.raises(ValueError, match=r"before torch\.compile"):
        count(torch.compile(nn.Linear(3, 3), backend="eager"), torch.ones(3))


def test_costs_show_themselves():
    costs = count({"linear": lambda x: x @ x.mT}, torch.ones(4, 8))
    assert repr(costs).splitlines()[2].split() == ["linear", "256", "FLOP", "1", "64", "B", "64", "B"]
    assert list(costs) == ["linear"]
    assert len(costs) == 1
    assert repr(costs["linear"]).splitlines()[2].split() == ["matrix", "FLOPs", "256", "FLOP"]


def test_counting_leaves_garbage_collection_as_it_was():
    with torch.inference_mode():  # where composite operations arrive whole, and are counted by entering anew
        count(torch.nn.functional.linear, torch.ones(2, 3), torch.ones(4, 3))
    assert gc.isenabled()
    gc.disable()
    try:
        count(torch.sin, torch.ones(2))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_forward_over_forward_is_counted():
    """In a process of its own, which torch 2.13 would end."""
    script = """
import torch
import torch.nn.functional as F
from torch.func import jvp
import funcdiff as fd
from funcdiff.measure import count
x = t = torch.ones(3)
for func in (
    lambda x: F.mse_loss(x, t),
    lambda x: torch.addcmul(x, x, t),
    lambda x: torch.addcdiv(x, x, t),
    lambda x: torch.ldexp(x, t),
    lambda x: x.index_add(0, torch.arange(3), x * t),
):
    first = lambda x: jvp(func, (x,), (t,))[1]
    assert count(lambda x: jvp(first, (x,), (t,))[1], x).operations
    options = dict(chunk_size="auto", budget=1e6, hessian=fd.hessian_forward_over_forward)
    fd.batch_hessian(lambda x: func(x).sum(), **options)(x.expand(2, 3))
    fd.laplacian(fd.laplacian(lambda x: func(x).sum()))(x)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
