"""The head of a notebook, with a public repository configured and without."""

import subprocess
import sys

import pytest
from sphinx_gallery.notebook import add_code_cell, add_markdown_cell, jupyter_notebook_skeleton

from _ext.gallery import notebooks


def test_with_a_repository_the_first_cell_installs_from_it():
    assert notebooks.install_cell("owner/name") == (
        '%pip install --quiet "funcdiff[gallery] @ git+https://github.com/owner/name"'
    )


@pytest.mark.parametrize("installed", [True, False])
def test_without_one_it_says_what_to_do_only_where_the_package_lacks_and_never_fails(installed, tmp_path):
    cell = notebooks.install_cell("")
    if not installed:  # a module of a name that does not exist stands for the package
        cell = cell.replace('find_spec("funcdiff")', 'find_spec("no_such_package")')
    done = subprocess.run([sys.executable, "-c", cell], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert ('pip install ".[gallery]"' in done.stdout) is not installed


def test_the_environment_comes_second_and_roles_become_code():
    notebook = jupyter_notebook_skeleton()
    add_code_cell(notebook, "install")
    add_markdown_cell(notebook, "Take :func:`funcdiff.vhp`, see :class:`~torch.no_grad`; :math:`x` stays.")
    add_markdown_cell(notebook, "A :term:`pass`, two :term:`passes <pass>`, and :doc:`/guides/needs`.")
    add_code_cell(notebook, "text = ':func:`x`'")
    install, environment, prose, links, code = notebooks.finish(notebook)["cells"]
    assert install["source"] == ["install"]
    assert "environment()" in environment["source"][0]
    assert prose["source"] == ["Take `funcdiff.vhp`, see `torch.no_grad`; :math:`x` stays."]
    assert links["source"] == ["A pass, two passes, and /guides/needs."]
    assert code["source"] == ["text = ':func:`x`'"]
