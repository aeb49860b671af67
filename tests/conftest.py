"""Fixtures of more than one file."""

import gc
import logging
import re
import sys
from pathlib import Path

import pytest
import torch
from becoming import named
from torch import nn

from funcdiff._automatic import cache

TESTS = Path(__file__).parent
(PINNED,) = re.findall(r"^torch==([\d.]+)", (TESTS.parent / "constraints.txt").read_text(), re.MULTILINE)
# The pages, and the data that are kept for them, are of the pinned torch: with another one the package alone is tested.
OF_PAGES = "from _ext.shown import atlas", "from _ext.shown import bench", "from _ext.pages import diagrams, executed"
collect_ignore = [
    path.name
    for path in TESTS.glob("test_*.py")
    if not torch.__version__.startswith(PINNED) and any(line in path.read_text() for line in OF_PAGES)
]


def pytest_collection_finish():
    """Keep what the collection made out of the garbage collector's sight: each measurement begins with a collection."""
    gc.freeze()


@pytest.fixture
def composed(caplog):
    """Whether Taylor mode was left, with the reasons."""
    caplog.set_level(logging.INFO, "funcdiff.taylor")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "funcdiff.taylor"]


@pytest.fixture
def forgetful():
    """No plan is kept from the tests before."""
    cache._plans.clear()


@pytest.fixture
def restored(monkeypatch):
    """What functions of `becoming` name, and the layers of torch, as they were before the test."""
    monkeypatch.setattr(named, "HELPER", named.HELPER)
    monkeypatch.setattr(named.SETTINGS, "mode", "sine")
    monkeypatch.setitem(sys.modules, named.SETTINGS.__name__, named.SETTINGS)
    monkeypatch.setattr(nn.functional, "celu", nn.functional.celu)
    monkeypatch.setattr(nn.Tanhshrink, "forward", nn.Tanhshrink.forward)
    monkeypatch.setenv("FUNCDIFF_TEST", "")
    monkeypatch.delenv("FUNCDIFF_TEST")
    token = named.VARIABLE.set(True)
    yield
    named.VARIABLE.reset(token)
    nn.modules.module._global_forward_hooks.clear()
