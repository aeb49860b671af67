"""What a page keeps of its measurements, where they were made, and a reader's own beside them."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch

from funcdiff.measure import (
    Comparison,
    Costs,
    Environment,
    Timing,
    compare,
    count,
    document,
    environment,
    provenance,
    recording,
    schema,
    sweep,
)

X = torch.ones(3)


def timed(arguments=("float32[3]",), **medians):
    timings = {name: Timing((median,) * 8, 1, 1.0) for name, median in medians.items()}
    return Comparison(timings, 1, arguments, environment())


@pytest.fixture(scope="module")
def log():
    candidates = {"square": torch.square, "product": lambda x: x * x}
    with recording() as log:
        comparison = compare(candidates, X, rounds=8, costs=True)
        comparison.claim("square", faster_than="product")
        sweep(lambda n: (candidates, (torch.ones(n),)), [2, 4], rounds=8)
        count(candidates, X).claim("square", smaller_peak_than="product", by=1)
        count(torch.square, X)
        compare({"slow": torch.square, "slower": torch.square}, X, budget=1e-9)
    return log


def test_everything_made_inside_is_recorded_once_and_in_order(log):
    assert [record.kind for record in log] == ["comparison", "claim", "sweep", "costs", "claim", "cost", "comparison"]


def test_nothing_is_recorded_outside_nor_after_an_error():
    with pytest.raises(ZeroDivisionError), recording() as log:
        raise ZeroDivisionError
    count(torch.square, X)
    assert log == []


def test_recordings_nest():
    with recording() as outer:
        with recording() as inner:
            cost = count(torch.square, X)
        count(torch.square, X)
    assert (inner, outer) == ([cost], [cost, cost])


def test_a_document_follows_the_schema_and_survives_json(log):
    content = document(log, page="gallery/jacobians")
    text = json.dumps(content, allow_nan=False)
    assert json.loads(text) == content
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(content, schema())
    both_cut_off = content["measurements"][-1]["candidates"].values()
    assert {None, 1.0} >= {candidate["ratio"]["high"] for candidate in both_cut_off}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.update(version=2),
        lambda content: content.pop("page"),
        lambda content: content["environment"].update(cores=0),
        lambda content: content["environment"].update(extra=1),
        lambda content: content["environment"].update(date="yesterday"),
        lambda content: content["measurements"][0].update(kind="guess"),
        lambda content: content["measurements"][0]["candidates"]["square"].update(median=-1.0),
        lambda content: content["measurements"][1].update(verdict="perhaps"),
        lambda content: content["measurements"][2].update(points=[]),
        lambda content: content["measurements"][5].update(flops=1.5),
    ],
)
def test_the_schema_refuses_what_is_wrong(log, spoil):
    content = json.loads(json.dumps(document(log, page="p")))
    spoil(content)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema())


def test_every_field_of_the_schema_is_described_or_named_plainly():
    for name, definition in schema()["$defs"].items():
        assert definition["description"], name


def test_the_readers_own_stand_beside_the_published(tmp_path):
    published = document([timed(a=0.002, b=0.006, c=1.0)], page="p", environment=replace(environment(), torch="9.9"))
    path = tmp_path / "published.json"
    path.write_text(json.dumps(published), encoding="utf-8")
    own = timed(b=0.001, a=0.004)
    table = own.beside(path)
    assert table.columns == ("candidate", "published", "here", "ratio, published", "ratio, here")
    assert table.rows == (("b", "6.00 ms", "1.00 ms", "3", "1"), ("a", "2.00 ms", "4.00 ms", "1", "4"))
    assert "Published: 1 thread(s), " in table.caption
    assert "torch 9.9. Here: Measured with 1 thread, torch" in table.caption
    assert own.beside(str(path)) == own.beside(published) == table
    assert "<table" in table._repr_html_()


def test_the_published_comparison_of_the_same_candidates_and_shapes_is_taken():
    small, large = timed(("float32[3]",), a=1.0, b=2.0), timed(("float32[9]",), a=1.0, b=5.0)
    other = timed(("float32[9]",), a=1.0, z=2.0)
    content = document([other, small, large], page="p")
    assert large.beside(content).rows[1][3] == "5"
    assert small.beside(content).rows[1][3] == "2"
    elsewhere = timed(("float32[7]",), a=1.0, b=1.0).beside(content)
    assert elsewhere.rows[1][3] == "2"
    assert "The arguments' shapes differ." in elsewhere.caption


def test_a_point_of_a_sweep_can_be_set_beside(log):
    content = document(log[2:3], page="p")
    own = timed(("float32[4]",), square=1.0, product=2.0)
    assert "shapes differ" not in own.beside(content).caption


def test_a_document_without_the_candidates_or_of_another_version_is_refused():
    with pytest.raises(ValueError, match="page 'p' has none"):
        timed(a=1.0, b=2.0).beside(document([timed(a=1.0, z=2.0)], page="p"))
    with pytest.raises(ValueError, match="expected a document of version 1, got 2"):
        timed(a=1.0, b=2.0).beside({"version": 2})


def test_the_environment_is_that_of_now():
    before = torch.get_num_threads(), torch.get_default_dtype()
    try:
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        here = environment()
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])
    assert (here.threads, here.dtype, here.torch) == (2, "float64", torch.__version__)
    assert here.python == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= here.cores <= os.cpu_count()
    assert here.processor
    assert re.fullmatch(r"BLAS \w+, \w+.*, CUDA .+", here.build)
    assert Environment.from_dict(here.to_dict()) == here
    rows = dict(here.table().rows)
    assert rows["threads"] == "2"
    assert "float64" in here._repr_html_()


def test_the_commit_is_that_of_the_checkout_funcdiff_is_imported_from():
    here = Path(provenance.__file__).parent
    inside = subprocess.run(["git", "-C", here, "ls-files", "--error-unmatch", "provenance.py"], capture_output=True)
    if inside.returncode:
        assert environment().commit is None
    else:
        head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        assert environment().commit.removesuffix("+") == head.stdout.strip()


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance._commit.__wrapped__() is None


def test_costs_are_recorded_as_plain_values(log):
    costs = log[3]
    assert isinstance(costs, Costs)
    assert costs.to_dict()["candidates"]["square"] == {
        "kind": "cost",
        "flops": 0,
        "operations": 1,
        "bytes_written": 12,
        "peak_bytes": 12,
        "uncounted": [],
        "collectives": 0,
        "bytes_sent": 0,
    }
