"""What depends on the device, where there is a GPU: recipes, counts, peaks, budgets, streams, graphs, TF32."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.func import vmap
from torch.testing import assert_close

import funcdiff as fd
from _tools.gpu.effects import replayed
from funcdiff import distributed
from funcdiff.checks.registry import EXACT
from funcdiff.measure import compare, count
from funcdiff.problems import study_network

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings(
        "ignore:Attempting to run cuBLAS, but there was no current CUDA context"
    ),  # a first call
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # vmap of the processor's recurrent layers
]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 2)).double().requires_grad_(False)


def applied(entry, network, device):
    """The recipe on the network, which is moved there; on the sum of its outputs if it asks for a scalar."""
    network = network.to(device)
    rows = torch.linspace(-1, 1, 6, dtype=torch.float64, device=device).view(2, 3)
    x = rows if entry.kind.startswith("batch") else rows[0]
    if not entry.of_scalars:
        return entry(network if entry.kind != "laplacian" else lambda x: network(x).sum(), x)
    total = lambda x: network(x).sum()  # noqa: E731  (both calls below differentiate it)
    return entry(total, x, torch.ones_like(x)) if entry.takes_vector else entry(total, x)


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.name)
def test_a_recipe_gives_the_numbers_of_the_processor(entry, network):
    expected = applied(entry, network, "cpu")
    result = applied(entry, network, "cuda")
    assert result.is_cuda
    assert_close(result.cpu(), expected)


@pytest.mark.parametrize("name", ["jacobian_forward", "jacobian_reverse", "hessian_taylor"])
def test_flops_are_those_of_the_processor(name):
    counts = []
    for device in ("cpu", "cuda"):
        network = study_network((5, 50, 25)).to(device).requires_grad_(False)
        counts.append(count(vmap(getattr(fd, name)(network)), torch.ones(10, 5, device=device)).flops)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["jacobian_forward", "jacobian_reverse", "hessian_taylor"])
def test_the_counted_peak_is_the_allocators(name):
    network = study_network().cuda().requires_grad_(False)
    batch = torch.randn(100, 5, device="cuda")
    way = vmap(getattr(fd, name)(network))
    way(batch)  # workspaces of the libraries are allocated once
    counted = count(way, batch).peak_bytes
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    way(batch)
    allocated = torch.cuda.max_memory_allocated() - before
    assert counted <= allocated * 1.01
    assert allocated <= 1.1 * counted + 2**21  # blocks are rounded up


def test_a_call_is_timed_to_its_end():
    matrix = torch.randn(8192, 8192, device="cuda")
    times = compare({"once": lambda m: m @ m, "thrice": lambda m: m @ m @ m @ m}, matrix, rounds=8, equal=False)
    assert 2 < times.ratio("thrice", "once").median < 4


def test_a_budget_of_the_free_memory_holds():
    weight = torch.randn(2000, 2000, device="cuda")
    free = torch.cuda.mem_get_info()[0]
    budget = min(free, 400 * 2**20)

    def func(x):
        return torch.tanh(weight @ x) * x

    x = torch.randn(2000, device="cuda")
    way = fd.jacobian(func, chunk_size="auto", budget=budget)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = way(x)
    assert torch.cuda.max_memory_allocated() - before <= 1.1 * budget
    assert_close(result, fd.jacobian_reverse(func)(x), rtol=1e-3, atol=1e-4)


def test_another_stream_sees_its_own_work(network):
    network = network.cuda()
    x = torch.ones(3, dtype=torch.float64, device="cuda")
    expected = fd.jacobian(network)(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = fd.jacobian(network)(x)
    stream.synchronize()
    assert_close(result, expected)


def test_a_derivative_can_be_replayed_as_a_graph(network):
    network = network.cuda()
    way = fd.jacobian_reverse(network)
    replay = replayed(way, torch.ones(3, dtype=torch.float64, device="cuda"))
    x = torch.tensor([0.3, -2.0, 0.7], dtype=torch.float64, device="cuda")
    assert_close(replay(x), way(x))


def test_the_check_of_a_plan_accuses_nothing_computed_in_tf32():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        network = study_network().cuda().requires_grad_(False)
        batch = torch.randn(20, 5, device="cuda")
        assert torch.isfinite(fd.batch_hessian(network)(batch)).all()
        assert torch.isfinite(fd.hessian(network)(batch[0])).all()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_autocast_is_differentiated(network):
    network = network.float().cuda()
    x = torch.ones(3, device="cuda")
    expected = fd.jacobian(network)(x)
    with torch.autocast("cuda", torch.bfloat16):
        assert_close(fd.jacobian(network)(x).float(), expected, rtol=0.1, atol=0.05)


def test_check_derivatives_runs_there(network):
    report = fd.check_derivatives(network.cuda(), torch.ones(3, dtype=torch.float64, device="cuda"))
    (verdict,) = [line for line in str(report).splitlines() if line.startswith("hessian_double_backward")]
    assert "right" in verdict


def test_a_product_over_processes_runs_over_nccl():
    """One process: a second one would need a second GPU."""
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        x = torch.tensor([1.0, 2.0], dtype=torch.float64, device="cuda")
        operator = distributed.hvp_operator(lambda x: x.pow(3).mean(), x, samples=2)
        assert_close(operator(x), 3 * x * x)
        assert_close(distributed.jacobian(torch.sin)(x).full_tensor(), x.cos().diag())
    finally:
        dist.destroy_process_group()
