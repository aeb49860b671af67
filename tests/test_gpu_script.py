"""The script of `nox -s gpu`, rehearsed without one: small sizes, and the processor in the place of the GPU."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from _ext.shown import gpu as page
from _tools.bench.regret import Case
from _tools.gpu import effects, rates, run, studies, turns
from funcdiff.problems import study_network

DOCS = Path(__file__).parents[1] / "docs"
NETWORKS = [Case(what, 2, 3, rows, 4, 1, nn.Tanh, False) for what in ("Jacobian", "Hessian") for rows in (1, 3)]
_numbers = studies.numbers


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """No side longer than 8."""
    for module in (effects, studies, turns):
        monkeypatch.setattr(module, "numbers", lambda device, *shapes: _numbers(device, *map(_cut, shapes)))
        monkeypatch.setattr(module, "study_network", lambda sizes=(5, 8, 8, 25): study_network(sizes))
    monkeypatch.setattr(turns, "SIDES", (1, 8))
    monkeypatch.setattr(turns, "ROWS", (1, 8))
    monkeypatch.setattr(turns, "WIDTHS", (4, 8))
    monkeypatch.setattr(rates, "cases", lambda seed: iter(NETWORKS))


def _cut(shape):
    return tuple(min(side, 8) for side in shape)


@pytest.fixture
def card(monkeypatch):
    """What only a GPU has: an allocator that keeps its peak, and graphs."""
    for name, result in {"synchronize": None, "reset_peak_memory_stats": None, "memory_allocated": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda result=result: result)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2**20)
    monkeypatch.setattr(effects, "replayed", lambda way, example: way)


@pytest.mark.slow
def test_the_page_shows_every_part_that_the_script_writes(card, tmp_path):
    path = tmp_path / "gpu.json"
    run.main(path, "cpu")
    data = json.loads(path.read_text())
    assert data.keys() - data["took"].keys() == {"environment", "driver", "rounds", "took"}
    source = (DOCS / "reference" / "gpu.rst").read_text()
    asked = re.findall(r"^\.\. gpu-figures:: gpu.json (\w+)", source, re.MULTILINE)
    assert set(asked) == page.PARTS.keys()
    shown = {part: [node.astext() for node in page.PARTS[part](data)] for part in asked}
    assert all("".join(texts).strip() for texts in shown.values())
    assert shown["studies"][0].count("torch.func.hessian") == 3  # a row each of studies A and C, and the trace
    assert len(data["winners_cuda"]) == len(data["winners_cpu"]) == 4
    assert data["rates"]["regret"]["networks"] == len(NETWORKS) / 2


@pytest.mark.slow
def test_without_a_gpu_the_processor_is_measured_and_the_script_says_so(tmp_path, capsys):
    path = tmp_path / "gpu.json"
    run.main(path, None)
    assert "no GPU" in capsys.readouterr().out
    data = json.loads(path.read_text())
    assert data["took"].keys() == {"studies_cpu", "winners_cpu", "growing_cpu", "rates"}


def test_a_run_that_fails_leaves_what_it_had(card, tmp_path, monkeypatch):
    def lost(device, threads):
        raise RuntimeError("the card is gone")

    monkeypatch.setattr(run, "study_rows", lost)
    with pytest.raises(RuntimeError, match="gone"):
        run.main(tmp_path / "gpu.json", "cpu")
    assert json.loads((tmp_path / "gpu.json").read_text())["took"].keys() == {"peaks", "precision", "graphs"}
