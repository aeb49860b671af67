"""The downloads, each alone in an empty folder, in an environment that holds the wheel and its gallery extra."""

import ast
import os
import subprocess
import sys

import nbformat
import pytest
from conftest import SITE, TUTORIALS
from nbclient import NotebookClient

DOWNLOADS = {path.name: path for path in sorted((SITE / "_downloads").rglob("*")) if path.suffix in (".py", ".ipynb")}
FIRSTS = {page.parent: page for page in reversed(TUTORIALS)}.values()  # of each folder: the rest is the scripts' code


def test_each_tutorial_offers_script_and_notebook():
    pages = {page.stem for page in (SITE / "tutorials").glob("*/*.html")} - {"index", "sg_execution_times"}
    assert pages
    assert set(DOWNLOADS) == {f"{page}{suffix}" for page in pages for suffix in (".py", ".ipynb")}


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_script_runs_and_notebook_is_the_same_code(page, tmp_path):
    script, notebook = (DOWNLOADS[f"{page.stem}{suffix}"] for suffix in (".py", ".ipynb"))
    (tmp_path / script.name).write_bytes(script.read_bytes())
    env = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script.name], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    ours = code(script.read_text(encoding="utf-8"))
    assert code("\n".join(cells))[-len(ours) :] == ours  # after what says how to install it, and where it runs


def code(text):
    """The statements, without the comments and the page's text."""
    tree = ast.parse(text)
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return [ast.unparse(statement) for statement in tree.body]


@pytest.mark.parametrize("page", FIRSTS, ids=lambda page: page.parent.name)
def test_notebook_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook chooses its own
    notebook = nbformat.read(DOWNLOADS[f"{page.stem}.ipynb"], as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
