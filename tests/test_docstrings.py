"""Each recipe documents itself whole: its parameters, its result, its errors and an example."""

import inspect
import re
import subprocess
import sys

import pytest
from sphinx.ext.napoleon import Config, GoogleDocstring

from funcdiff.checks.registry import REGISTRY

ALL = [entry.recipe for entry in REGISTRY]


def entries(doc, title):
    """What a section of a Google style docstring describes, name by name."""
    (section,) = re.findall(rf"^{title}:\n((?:    .*\n|\n)+)", doc + "\n", re.MULTILINE)
    return dict(re.findall(r"^    (\*?\w+): (.+)", section, re.MULTILINE))


@pytest.mark.parametrize("recipe", ALL)
def test_a_docstring_is_whole(recipe):
    doc = inspect.getdoc(recipe)
    assert doc.splitlines()[0].endswith(".")
    assert list(entries(doc, "Args")) == [
        str(p).partition(":")[0] for p in inspect.signature(recipe).parameters.values()
    ]
    assert {"TypeError", "ValueError", "RuntimeError"} <= entries(doc, "Raises").keys()
    titles = re.findall(r"^(Args|Returns|Raises|Example|Cost):", doc, re.MULTILINE)
    assert titles == ["Example", "Args", "Returns", "Raises", "Cost"]  # what a reader copies stands on the first screen
    assert f"import {recipe.__name__}" in doc or re.search(rf"import .*, {recipe.__name__}\b", doc)
    assert "shape" in doc.split("Raises:")[0]
    assert re.search(rf">>> .*\b{recipe.__name__}\(", doc)
    assert "{" not in doc.split("Args:")[1].split("Cost:")[0]
    assert max(map(len, doc.splitlines())) <= 116


@pytest.mark.parametrize("recipe", ALL)
def test_the_reference_shows_what_the_docstring_says(recipe):
    shown = str(GoogleDocstring(inspect.getdoc(recipe), Config(napoleon_numpy_docstring=False)))
    names = [name.replace("\\*", "") for name in re.findall(r"^:param (\S+):", shown, re.MULTILINE)]
    assert names == list(inspect.signature(recipe).parameters)
    assert ":returns:" in shown
    assert not re.search(r":(rtype|type \w+):", shown)  # a colon would make the words before it a type


def test_the_package_works_without_docstrings():
    subprocess.run([sys.executable, "-OO", "-c", "import funcdiff; assert not funcdiff.jacobian.__doc__"], check=True)
