import json
from pathlib import Path

import pytest
import torch
from sphinx.errors import ExtensionError

import funcdiff
from _ext.shown import bench
from _tools.bench import prepared_cases, sparse
from _tools.bench.floor import products_of
from _tools.bench.profiling import place, profile
from _tools.bench.run import LINE, objection, verdict, written
from funcdiff import hessian_taylor
from funcdiff.measure import Ratio, count
from funcdiff.problems import study_network

DATA = Path(__file__).parents[1] / "docs" / "reference" / "bench.json"


@pytest.fixture(scope="module")
def data():
    return bench.load(DATA)


def test_the_file_has_an_entry_a_line():
    text = DATA.read_text()
    assert text == written(json.loads(text)) + "\n", "write it by `nox -s bench`"
    lines = text.splitlines()
    assert max(map(len, lines)) < LINE + 100  # an entry, its name and the indentation
    assert all(len(line) < LINE for line in written({"entries": [{"times": [0.1] * 100}] * 9}).splitlines())


def test_products_alone_are_those_of_the_recipe_and_nothing_else():
    network = study_network((3, 8, 8, 4)).requires_grad_(False)
    hessians, batch = torch.vmap(hessian_taylor(network)), torch.randn(5, 3)
    products = products_of(hessians, batch)
    whole, alone = count(hessians, batch), count(products, batch)
    assert alone.flops == whole.flops > 0
    assert alone.operations < whole.operations
    torch.testing.assert_close(products(batch), hessians(batch))


def test_a_profile_tells_the_parts_of_the_code_apart():
    shares = profile(torch.func.vmap(hessian_taylor(torch.sin)), torch.ones(3, 2))
    assert {"the rest of funcdiff", "torch's Python"} < shares.keys()
    assert sorted(shares.values(), reverse=True) == list(shares.values())
    assert 0.5 < sum(shares.values()) <= 1
    assert place("~", "<method 'run_backward' of 'torch._C._EngineBase' objects>") == "run_backward"
    assert place("~", "<built-in method torch._C._nn.linear>") == "torch._C._nn.linear"
    assert place(funcdiff._automatic.lookup.__file__, "for_product") == "looking the plan up"
    assert place(__file__, "func") == "func, and Python's library"


@pytest.mark.parametrize(
    ("low", "high", "limits", "expected"),
    [
        (8, 9, (8, None), "reached"),
        (7, 9, (8, None), "undecided"),
        (6, 7.9, (8, None), "missed"),
        (1.2, 1.6, (None, 1.7), "reached"),
        (1.6, 1.8, (None, 1.7), "undecided"),
        (1.8, 1.9, (None, 1.7), "missed"),
        (4, 4, (None, 4), "reached"),
    ],
)
def test_verdict_needs_the_whole_interval(low, high, limits, expected):
    assert verdict(Ratio((low + high) / 2, low, high, 9), *limits) == expected


def test_a_composition_that_differs_or_refuses_is_no_candidate():
    def refuses(x):
        raise RuntimeError("no formula")

    x = torch.ones(2)
    assert objection(x, lambda x: x.clone(), (x,)) == ""
    assert objection(x, lambda x: 2 * x, (x,)) == "differs"
    assert objection(x, refuses, (x,)) == "refuses"


def test_what_is_kept_has_every_goal_judged_and_every_part_shown(data):
    kept = [goal for case in data["cases"] for goal in case["goals"]]
    assert len(kept) >= 9
    for goal in kept:
        ratio = Ratio(**{**goal["ratio"], "high": goal["ratio"]["high"] or float("inf")})
        assert goal["verdict"] == verdict(ratio, goal["at_least"], goal["at_most"])
    assert all(case["bare"] in case["ratios"] for case in data["cases"])
    for part in bench.PARTS.values():
        assert part(data)


def test_losses_are_shown(data):
    text = " ".join(node.astext() for node in [*bench.cases(data), *bench.networks(data), *bench.goals(data)])
    for case in data["cases"]:
        assert all(name in text for name in case["ratios"])
    assert all(network["name"] in text for network in data["networks"])
    assert all(goal["verdict"] in text for case in data["cases"] for goal in case["goals"])


def test_a_larger_peak_is_explained():
    text = bench._larger({"a loader": 1.33, "a product": 0.3, "an operator": 40.0}, 9)
    assert "larger in 3 of 9 rows" in text
    assert "In 2 of them, the difference is at most 1.3 times the memory of the parameters" in text
    assert "In 1 (an operator), only one product is computed" in text
    assert bench._larger({}, 9) == "Its peak is larger in 0 of 9 rows."


def test_a_benchmark_of_another_torch_fails_the_build(tmp_path, data):
    old = tmp_path / "bench.json"
    old.write_text(json.dumps({**data, "environment": {**data["environment"], "torch": "1.0.0"}}))
    with pytest.raises(ExtensionError, match="nox -s bench"):
        bench.load(old)


def test_ways_to_a_sparse_matrix_agree(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda func: func)  # it takes seconds, for what is prepared already
    generator = torch.Generator().manual_seed(0)
    for case in (
        sparse.stencil_jacobian(torch.rand(2 * 5**2, generator=generator, dtype=torch.float64)),
        sparse.chain_hessian(torch.rand(9, generator=generator, dtype=torch.float64)),
    ):
        expected = case.ways[case.floor](*case.args)
        for name, way in case.ways.items():
            assert objection(expected, way, case.args) == "", name
        assert products_of(case.ways[case.floor], *case.args) is None


def test_ways_to_a_prepared_derivative_agree(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda func: func)
    for case in prepared_cases.cases():
        expected = case.ways[case.floor](*case.args)
        for name, way in case.ways.items():
            assert objection(expected, way, case.args) == "", name
        assert case.bare in case.ways
