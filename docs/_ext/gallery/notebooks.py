"""Notebooks that open well: how to install, where it runs, no reST left in their prose; and, where it can be, Colab."""

import re
import shutil
from pathlib import Path

from sphinx_gallery import gen_rst
from sphinx_gallery.notebook import add_code_cell, save_notebook

from _ext.gallery.tutorials import RUN, record_of, sources

_FROM_REPOSITORY = '%pip install --quiet "funcdiff[gallery] @ git+https://github.com/{repository}"'
_FROM_CHECKOUT = """from importlib.util import find_spec

if find_spec("funcdiff") is None:
    print('To run this, install funcdiff: in a checkout of it, python -m pip install ".[gallery]"')"""
_ENVIRONMENT = """from funcdiff.measure import environment

environment()"""
_ROLE = re.compile(r":(?:func|class|mod|meth):`~?([^`]+)`")
_WORD = re.compile(r":(?:term|dfn|doc):`([^`<]+?)(?:\s*<[^>`]*>)?`")
_COLAB = "https://colab.research.google.com/github/{repository}/blob/notebooks/{page}.ipynb"


def install_cell(repository):
    """The first cell: installs from a public repository, "owner/name"; without one it says how to from a checkout."""
    return _FROM_REPOSITORY.format(repository=repository) if repository else _FROM_CHECKOUT


def colab_address(repository, page):
    """Where Colab opens a tutorial: from the repository's branch `notebooks`, which CI keeps."""
    return _COLAB.format(repository=repository, page=page)


def finish(notebook):
    """Put the environment's cell second, and in prose turn roles into code, links to pages of the site into words."""
    first, *others = notebook["cells"]
    notebook["cells"] = [first]
    add_code_cell(notebook, _ENVIRONMENT)
    notebook["cells"] += others
    for cell in others:
        if cell["cell_type"] == "markdown":
            cell["source"] = [_WORD.sub(r"\1", _ROLE.sub(r"`\1`", line)) for line in cell["source"]]
    return notebook


def _copy(app, exception):
    """Lay the notebooks out for the branch that Colab reads."""
    if exception or app.builder.name != "html" or not app.config.public_repository:
        return
    for source in sources():
        notebook = record_of(source).with_suffix(".ipynb")
        target = Path(app.outdir, "notebooks", notebook.relative_to(RUN))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(notebook, target)


def setup(app):
    """Finish notebooks as Sphinx-Gallery saves them, for which it has no hook."""
    gen_rst.save_notebook = lambda notebook, file: save_notebook(finish(notebook), file)
    app.add_config_value("public_repository", "", "env", types=frozenset({str}))
    app.connect("build-finished", _copy, priority=920)
