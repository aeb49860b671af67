"""Curvature of networks beside curvlinops: Gauss-Newton and Fisher products, over a loader, and an estimated trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import funcdiff as fd
from funcdiff.measure import compare, count, environment
from funcdiff.problems import study_network

ROUNDS = 15
BUDGET = 1.0  # seconds a call, beyond which one sample is enough
PRODUCTS = 60  # of an estimated trace
DRAWS = 40  # of an estimate, whose mean must be near the exact number


@dataclass(frozen=True)
class Job:
    """The same number by both packages; `exact` is what a random one estimates."""

    name: str
    ours: Callable[[Tensor], Any]
    theirs: Callable[[Tensor], Any]
    exact: Tensor | None = None


@dataclass(frozen=True)
class Classifier:
    """A network, its data and its parameters."""

    name: str
    network: nn.Module
    rows: Tensor
    labels: Tensor

    def jobs(self, v: Tensor) -> Iterator[Job]:
        """Every job, for the mean cross entropy."""
        from curvlinops import FisherMCLinearOperator, GGNLinearOperator, hutchpp_trace

        func, parameters = fd.module_function(self.network)
        loss = nn.CrossEntropyLoss()
        batches = list(zip(self.rows.split(48), self.labels.split(48), strict=True))  # the last one is smaller
        count = len(self.rows)

        def gauss_newton(rows: Tensor, labels: Tensor) -> fd.Operator:
            return fd.gauss_newton_operator(lambda p: func(p, rows), lambda y: loss(y, labels), parameters)

        def theirs(kind: Any, data: Any, **options: Any) -> Any:
            return kind(self.network, loss, list(self.network.parameters()), data, check_deterministic=False, **options)

        def fisher(seed: int) -> fd.Operator:
            generator = torch.Generator().manual_seed(seed)
            categorical: Any = {"likelihood": "categorical", "samples": 1, "generator": generator}
            return fd.fisher_operator(lambda p: func(p, self.rows), parameters, **categorical) / count

        def curvature(operator: Any, v: Tensor) -> Tensor:
            product: Tensor = v @ (operator @ v)
            return product

        whole, data = gauss_newton(self.rows, self.labels), [(self.rows, self.labels)]
        peer = theirs(GGNLinearOperator, data)
        yield Job("Gauss-Newton product, the operator made before", lambda v: whole @ v, lambda v: peer @ v)
        yield Job(
            "Gauss-Newton product",
            lambda v: fd.ravel(
                fd.gauss_newton_product(
                    lambda p: func(p, self.rows),
                    lambda y: loss(y, self.labels),
                    (parameters,),
                    (fd.ravel(parameters)[1](v),),
                )
            )[0],
            lambda v: peer @ v,
        )
        ours, other = fd.over_batches(gauss_newton, batches), theirs(GGNLinearOperator, batches)
        yield Job("Gauss-Newton product over a loader", lambda v: ours @ v, lambda v: other @ v)
        seeds = iter(range(10**6))
        yield Job(
            "Fisher product, one label a row",
            lambda v: curvature(fisher(next(seeds)), v),
            lambda v: curvature(theirs(FisherMCLinearOperator, data, mc_samples=1, seed=next(seeds)), v),
            curvature(whole, v),
        )
        trace = torch.stack([(whole @ e).dot(e) for e in torch.eye(len(v))]).sum() if len(v) < 5000 else None
        yield Job(
            f"trace by Hutch++, {PRODUCTS} products",
            lambda _: fd.trace_estimate(whole, products=PRODUCTS).value,
            lambda _: hutchpp_trace(peer, PRODUCTS),
            trace,
        )


def classifiers() -> Iterator[Classifier]:
    """Three networks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield Classifier("study C's network", study_network(), torch.randn(100, 5), torch.randint(25, (100,)))
        digits = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
        yield Classifier("a classifier of digits", digits, torch.randn(256, 64), torch.randint(10, (256,)))
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.GELU()]
        convolutions = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
        yield Classifier("convolutions", convolutions, torch.randn(128, 1, 8, 8), torch.randint(10, (128,)))


def run() -> dict[str, Any] | None:
    """Every job on every network; nothing without curvlinops."""
    if find_spec("curvlinops") is None:
        return None
    return {
        "environment": environment().to_dict(),
        "peer": f"curvlinops {version('curvlinops-for-pytorch')}",
        "rounds": ROUNDS,
        "jobs": [job for classifier in classifiers() for job in _on(classifier)],
    }


def _on(classifier: Classifier) -> Iterator[dict[str, Any]]:
    size = sum(parameter.numel() for parameter in classifier.network.parameters())
    v = torch.randn(size, generator=torch.Generator().manual_seed(1))
    for job in classifier.jobs(v):
        print(classifier.name, job.name, flush=True)
        ways = {"ours": job.ours, "theirs": job.theirs}
        for way in ways.values():
            _check_mean(way, v, job.exact)
        times = compare(ways, v, rounds=ROUNDS, budget=BUDGET, equal=job.exact is None and "trace" not in job.name)
        costs = count(ways, v)
        yield {
            "network": classifier.name,
            "parameters": size,
            "job": job.name,
            "times": times.to_dict(),
            "ratio": times.ratio("ours", "theirs").to_dict(),
            "costs": costs.to_dict()["candidates"],
        }


def _check_mean(way: Callable[[Tensor], Any], v: Tensor, exact: Tensor | None) -> None:
    """Raise if a random estimate is wrong on average."""
    if exact is not None:
        draws = torch.stack([way(v) for _ in range(DRAWS)])
        assert (draws.mean() - exact).abs() <= 5 * draws.std() / DRAWS**0.5 + 1e-4 * exact.abs(), (draws.mean(), exact)
