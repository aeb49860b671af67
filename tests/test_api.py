"""The check that the reference has an entry for each public name."""

from types import SimpleNamespace

import pytest
from sphinx.errors import ExtensionError

from _ext.pages import api


def environment(*documented):
    domain = SimpleNamespace(get_objects=lambda: [(name, name, "function", api.PAGE, name, 1) for name in documented])
    return SimpleNamespace(found_docs={api.PAGE}, domains=SimpleNamespace(python_domain=domain))


def test_every_public_function_and_class_is_asked_for():
    names = list(api.public_names())
    assert {"funcdiff.jacobian", "funcdiff.measure.Comparison", "funcdiff.plots.colours"} <= set(names)
    assert "funcdiff.plots.PALETTE" not in names


def test_a_name_without_an_entry_fails_the_build():
    first, *others = api.public_names()
    api.require_entries(None, environment(first, *others))
    with pytest.raises(ExtensionError, match=rf"docs/reference/api.rst: no entry for {first}$"):
        api.require_entries(None, environment(*others))
