"""What only a GPU has: its memory's own count, numbers rounded to TF32, replayed graphs of calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

import funcdiff as fd
from _tools.gpu.studies import numbers
from funcdiff.measure import compare, count
from funcdiff.problems import study_network

RECIPES = ("jacobian_forward", "jacobian_reverse", "hessian_taylor", "hessian_forward_over_forward")


def peaks(device: str) -> list[dict[str, Any]]:
    """Of study C's recipes: the peak that `count` finds, and what the GPU's allocator saw beyond what was there."""
    network = study_network().to(device).requires_grad_(False)
    (batch,) = numbers(device, (100, 5))
    found = []
    for name in (*RECIPES, "hessian_forward_over_reverse"):
        way = vmap(getattr(fd, name)(network))
        way(batch)  # the libraries' own workspaces are there from now on
        counted = count(way, batch).peak_bytes
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way(batch)
        torch.cuda.synchronize()
        found.append({"recipe": name, "counted": counted, "allocated": torch.cuda.max_memory_allocated() - before})
    return found


def precision(device: str) -> list[dict[str, Any]]:
    """Relative errors of a Jacobian and a Hessian in float32, with and without TF32, against float64."""
    dense = study_network().requires_grad_(False)
    torch.manual_seed(0)
    convolutions = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Flatten(0), nn.Linear(8 * 16, 10)
    ).requires_grad_(False)
    subjects: dict[str, tuple[nn.Module, Tensor]] = {
        "linear layers": (dense, numbers("cpu", (5,))[0]),
        "convolutions": (convolutions, numbers("cpu", (1, 8, 8))[0]),
    }
    before = torch.backends.cuda.matmul.allow_tf32
    found = []
    for layers, (module, x) in subjects.items():
        for what, recipe in (("Jacobian", fd.jacobian), ("Hessian", fd.hessian)):
            exact = recipe(module.double())(x.double())
            module.to(device, torch.float32)
            for setting, (products, cudnn) in SETTINGS.items():
                torch.backends.cuda.matmul.allow_tf32 = products
                fd.clear_plans()
                with torch.backends.cudnn.flags(enabled=True, allow_tf32=cudnn):
                    here = recipe(module)(x.to(device)).double().cpu()
                error = float((here - exact).norm() / exact.norm())
                found.append({"layers": layers, "derivative": what, "setting": setting, "error": error})
            module.cpu()
    torch.backends.cuda.matmul.allow_tf32 = before
    return found


# What torch allows by default: TF32 in convolutions, not in products of matrices.
SETTINGS = {"float32 everywhere": (False, False), "torch's default": (False, True), "TF32 everywhere": (True, True)}


def graphs(device: str) -> list[dict[str, Any]]:
    """Small derivatives as they are, prepared, and replayed as a CUDA graph: what a call costs beside its kernels."""
    network = study_network((5, 32, 32, 3)).to(device).requires_grad_(False)
    weight, bias, x, batch, long, direction = numbers(device, (16, 16), (16,), (16,), (10, 5), (2048,), (2048,))

    def layer(x: Tensor) -> Tensor:
        return torch.tanh(weight @ x + bias)

    def product(x: Tensor) -> Tensor:
        return fd.hvp(lambda x: x.sin().sum(), (x,), (direction,))

    subjects: list[tuple[str, Callable[..., Tensor], Tensor]] = [
        ("Jacobian of a layer, 16 inputs and outputs", fd.jacobian(layer), x),
        ("HVP of a sum of 2048 sines", product, long),
        ("Hessian of 10 rows of a network 5 → 32 → 32 → 3", fd.batch_hessian(network), batch),
    ]
    found = []
    for name, way, example in subjects:
        prepared = fd.prepare(way, example)
        ways = {"called": way, "prepared": prepared, "replayed": replayed(prepared, example)}
        times = compare(ways, example, rounds=25)
        ratios = {quick: times.ratio("called", quick).to_dict() for quick in ("prepared", "replayed")}
        found.append({"name": name, "times": times.to_dict(), "ratios": ratios})
    return found


def replayed(way: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """The calls of `way` as one CUDA graph, which reads its argument from a fixed place."""
    place = example.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # torch asks for a warm-up apart from the default stream
        for _ in range(3):
            way(place)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = way(place)

    def replay(x: Tensor) -> Tensor:
        place.copy_(x)
        graph.replay()
        return result

    return replay
