"""The rooms of the package: who imports whom, and where torch's private API may be used."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "funcdiff").rglob("*.py"))
PROTOCOLS = {"_asdict", "_replace", "_repr_html_"}  # of named tuples and of notebooks: public in spite of their names


def lint_imports(root):
    """What import-linter says of the package in `root` by the contracts in its pyproject.toml."""
    command = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    path = os.environ | {"PYTHONPATH": str(root / "src"), "COLUMNS": "200"}
    return subprocess.run([sys.executable, "-c", command], cwd=root, env=path, capture_output=True, text=True)


def test_imports_keep_the_contracts():
    found = lint_imports(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("recipes/hessians.py", "from funcdiff._automatic.choice import hessian", "Each room imports only"),
        ("recipes/hessians.py", "from funcdiff._safety.guard import corrected", "Each room imports only"),
        ("_torch/trees.py", "from funcdiff._calling.types import Function", "Each room imports only"),
        ("recipes/products.py", "from funcdiff import hessian", "Nothing imports the public names"),
        ("recipes/hessians.py", "def f():\n    from funcdiff.plots import colour", "Only a user imports plots"),
        ("_tables.py", "from funcdiff.plots import colour", "Only a user imports plots"),
        ("measure/timing.py", "from funcdiff.recipes import jacobians", "What measures and what draws"),
        ("plots/style.py", "from funcdiff.checks.registry import REGISTRY", "What measures and what draws"),
        ("measure/ratios.py", "from funcdiff.measure.comparison import Timing", "No circle of imports"),
        ("plots/style.py", "from funcdiff.plots.curves import plot_curves", "No circle of imports"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(tmp_path, file, line, contract):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "src" / "funcdiff" / file).open("a") as source:
        source.write(f"\n{line}\n")
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    (broken,) = [said for said in found.stdout.splitlines() if said.startswith(contract)][:1]
    assert broken.endswith("BROKEN")


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in PROTOCOLS


def private_uses(source):
    """Where a module reaches into torch: imports of private names, and private attributes of anything but self."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".") if alias.name.startswith("torch")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            names = [node.attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            names = [part.value for part in node.args[1:2] if isinstance(part, ast.Constant)]
        found += [f"line {node.lineno}: {ast.unparse(node)}" for name in names if is_private(name)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_private_names_of_torch_stay_in_their_room(path):
    found = [] if path.parent.name == "_torch" else private_uses(path.read_text())
    assert not found, f"move it to src/funcdiff/_torch, behind a name that says what it is for: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "import torch._dynamo",
        "from torch._functorch import pyfunctorch",
        "from torch.utils import _pytree",
        "from torch.utils._pytree import tree_map",
        "torch._C._are_functorch_transforms_active()",
        "count = x._version",
        "hasattr(func, '_orig_mod')",
    ],
)
def test_a_private_name_is_seen(line):
    assert private_uses(line)


def test_ones_own_private_names_are_left_alone():
    assert not private_uses(
        "self._plan = cls._make()\nx.__class__\nreport._repr_html_()\nfrom funcdiff._torch import trees"
    )


def test_the_guide_for_contributors_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    created = set(re.findall(r"Create (?:its test, )?`([^`]+)`", text))
    named = set(re.findall(r"\b(?:src|tests|docs|gallery)/[\w/.]*\w", text))
    assert {"src/funcdiff/checks", "tests/test_completeness.py"} <= named
    assert not (missing := {path for path in named - created if not (ROOT / path).exists()}), missing
