"""The versions of torch: one list wherever they are named, and a warning from a newer one."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from _ext.pages import requirements
from funcdiff._torch.versions import NEWEST, OLDEST

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [found[1] for name in PROJECT["classifiers"] if (found := re.fullmatch(r".* :: (3\.\d+)", name))]
(LISTED,) = re.findall(r'nox.parametrize\("torch", \[(.+)\]', (ROOT / "noxfile.py").read_text())
TESTED = re.findall(r"[\d.]+", LISTED)
MINORS = [version.rpartition(".")[0] for version in TESTED]


def test_each_release_from_the_oldest_to_the_newest_is_tested():
    assert (MINORS[0], MINORS[-1]) == (OLDEST, NEWEST)
    assert [f"2.{n}" for n in range(int(OLDEST[2:]), int(NEWEST[2:]) + 1)] == MINORS
    assert f"torch>={OLDEST}" in PROJECT["dependencies"]


def test_the_workflow_runs_the_tests_with_each_and_with_each_python():
    (workflow,) = (ROOT / ".github" / "workflows").glob("*.yml")
    job = yaml.safe_load(workflow.read_text())["jobs"]["torch"]
    assert job["strategy"]["matrix"] == {"torch": TESTED, "python": PYTHONS}
    assert "tests-torch(torch='${{ matrix.torch }}')" in job["steps"][-1]["run"]


@pytest.mark.parametrize("name", ["README.md", "docs/start/install.rst"])
def test_a_reader_is_told_these_versions(name):
    assert re.findall(r"torch (2\.\d+) to (2\.\d+)", (ROOT / name).read_text()) == [(OLDEST, NEWEST)]
    (supported,) = [supported for package, supported, _ in requirements.rows() if package == "torch"]
    assert supported == f"{OLDEST} or newer, tested up to {NEWEST}"


@pytest.mark.parametrize(("version", "warned"), [("2.15.9+cpu", 0), ("2.16.0a0+git1", 1)])
def test_a_newer_torch_warns_once_and_differentiates(version, warned):
    code = f"""
import torch
torch.__version__ = torch.torch_version.TorchVersion("{version}")
import funcdiff, funcdiff.measure
print(funcdiff.jacobian(torch.sin)(torch.zeros(2)).tolist())
"""
    found = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[[1.0, 0.0], [0.0, 1.0]]\n"
    assert found.stderr.count("tested with torch") == warned
