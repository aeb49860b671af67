"""What must never pass silently: each fault is planted in a small site of one tutorial, which then must not build."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = "gallery/jacobians/loop_against_vmap.py"
SOURCE = '''"""
Is this a tutorial?
===================

**Answer:** a small one.
"""

import torch

torch.ones(2).sum()
'''


@pytest.fixture(scope="module")
def sound_site(tmp_path_factory):
    """A built site that is in order: the project's own configuration, and one tutorial."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_ext", "_tools", "_static", "_templates"):
        shutil.copytree(ROOT / "docs" / name, root / "docs" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "docs" / "conf.py", root / "docs")
    write(root, "docs/index.rst", "Home\n====\n\n.. toctree::\n\n   tutorials/index\n   tutorials/sg_execution_times\n")
    write(root, "gallery/GALLERY_HEADER.rst", "Tutorials\n=========\n")
    write(root, "gallery/jacobians/GALLERY_HEADER.rst", "Jacobians\n---------\n")
    write(root, TUTORIAL, SOURCE)
    done = build(root)
    assert done.returncode == 0, done.stdout
    return root


@pytest.fixture
def project(sound_site, tmp_path):
    return Path(shutil.copytree(sound_site, tmp_path / "project", symlinks=True))


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def replace(root, name, old, new):
    path = root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def build(root, *options, builder="html"):
    command = [sys.executable, "-m", "sphinx", "-b", builder, "-n", "-W", "--keep-going", *options, "docs", "site"]
    return subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src"), "NO_COLOR": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def fails(root, *expected):
    done = build(root)
    assert done.returncode != 0, done.stdout
    for text in expected:
        assert text in done.stdout, done.stdout


def records(root):
    return {path: path.stat().st_mtime_ns for path in (root / "docs" / "tutorials").rglob("*.stamp")}


def test_tutorial_that_raises(project):
    write(project, TUTORIAL, SOURCE + "\nassert torch.ones(1) == 2, 'wrong answer'\n")
    fails(project, TUTORIAL, "wrong answer")


def test_tutorial_that_warns(project):
    write(project, TUTORIAL, SOURCE + "\nimport warnings\n\nwarnings.warn('look out')\n")
    fails(project, TUTORIAL, "UserWarning: look out")


def test_tutorial_that_is_not_executed(project):
    replace(project, "docs/conf.py", r'"filename_pattern": r"\.py$"', '"filename_pattern": "plot_"')
    fails(project, TUTORIAL, "was not executed")


def test_tutorial_without_a_place_in_the_order(project):
    write(project, TUTORIAL.replace("loop_against_vmap", "unheard_of"), SOURCE)
    fails(project, "unheard_of", "has no place in docs/_ext/gallery/order.py")


@pytest.mark.parametrize(
    ("name", "addition"),
    [
        ("src/funcdiff/__init__.py", "\nADDED = 1\n"),
        ("src/funcdiff/_safety/wrong_in/2.13.json", "\n"),
        ("docs/conf.py", "\nADDED = 1\n"),
        ("torch", None),
    ],
    ids=["package", "data", "configuration", "torch"],
)
def test_output_of_an_older_state_is_not_kept(project, name, addition):
    before = records(project)
    assert before
    assert build(project).returncode == 0
    assert records(project) == before, "nothing changed, yet the tutorial ran again"
    if addition:
        write(project, name, (project / name).read_text() + addition)
    else:
        # As if the last build had seen another torch.
        replace(project, "docs/_ext/gallery/tutorials.py", "platform.python_version()", "'another torch'")
    assert build(project).returncode == 0
    after = records(project)
    assert after.keys() == before.keys()
    assert all(after[path] > before[path] for path in before)


def test_kept_output_of_another_state_is_refused(project):
    # What a build that does not discard it would publish.
    replace(project, "docs/_ext/gallery/tutorials.py", 'app.connect("config-inited", drop_stale_output)', "")
    fails(project, TUTORIAL, "was executed with another package, configuration or torch")


def test_missing_inventory(project):
    replace(
        project,
        "docs/_ext/pages/inventories.py",
        'return {package: (address, str(folder / f"{package}.inv"))',
        ('return {package: (address, str(folder / f"{package}.inv").replace("torch", "lost"))'),
    )
    fails(project, "lost.inv")


def test_inventory_that_lost_torch(project):
    replace(project, "docs/_ext/pages/inventories.py", '"torch": "https://docs.pytorch.org/docs/stable",', "")
    fails(project, "torch")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":func:`funcdiff.no_such_recipe`", "no_such_recipe"),
        (":doc:`nowhere`", "nowhere"),
        ("`gone <missing.html>`__", "dead link missing.html"),
        ("`gone <tutorials/index.html#no-such-anchor>`__", "dead link tutorials/index.html#no-such-anchor"),
    ],
    ids=["name", "page", "file", "anchor"],
)
def test_dead_internal_link(project, text, expected):
    write(project, "docs/index.rst", (project / "docs/index.rst").read_text() + f"\n{text}\n")
    fails(project, "index", expected)


def test_dead_reference_is_found_without_running_anything(project):
    write(project, TUTORIAL, SOURCE.replace("a small one", ":func:`funcdiff.no_such_recipe`") + "\n1 / 0\n")
    before = records(project)
    done = build(project, "-D", "computed=0", builder="dummy")
    assert done.returncode != 0
    assert "no_such_recipe" in done.stdout
    assert "ZeroDivisionError" not in done.stdout
    assert records(project) == before


def test_figure_without_a_title(project):
    plot = "\nfrom matplotlib import pyplot as plt\n\nplt.plot([1, 2])\n"
    write(project, TUTORIAL, SOURCE + plot)
    fails(project, TUTORIAL, "has no title")


GUIDE = """:orphan:

Guide
=====

``no such text``
----------------

.. raises::

   1 / 0

.. runs::

   assert 1 == 2

.. misleads::

   wrong = right = 1.0
"""


def test_guide_that_torch_contradicts(project):
    write(project, "docs/guide.rst", GUIDE)
    fails(
        project,
        "guide.rst:9: WARNING: this page is out of date on torch",
        "expected 'no such text', got ZeroDivisionError",
        "guide.rst:13: WARNING",
        "the snippet fails: AssertionError",
        "guide.rst:17: WARNING",
        "what was wrong is right now",
    )
