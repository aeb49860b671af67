"""Every download, alone in an empty folder, in an environment that holds the wheel and its gallery extra."""

import os
import subprocess
import sys

import nbformat
import pytest
from conftest import SITE
from nbclient import NotebookClient

DOWNLOADS = {path.name: path for path in sorted((SITE / "_downloads").rglob("*")) if path.suffix in (".py", ".ipynb")}


def test_each_tutorial_offers_script_and_notebook():
    pages = {page.stem for page in (SITE / "tutorials").glob("*/*.html")} - {"index", "sg_execution_times"}
    assert pages
    assert set(DOWNLOADS) == {f"{page}{suffix}" for page in pages for suffix in (".py", ".ipynb")}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_download_runs(name, tmp_path, monkeypatch):
    source = tmp_path / name
    source.write_bytes(DOWNLOADS[name].read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if source.suffix == ".py":
        done = subprocess.run([sys.executable, name], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
    else:
        monkeypatch.delenv("MPLBACKEND")  # the notebook chooses its own
        NotebookClient(nbformat.read(source, as_version=4), timeout=300, kernel_name="python3").execute()
