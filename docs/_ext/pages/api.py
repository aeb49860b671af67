"""Fail the build where the reference lacks a public function or class; write signatures that read well."""

import importlib
import re

from sphinx.errors import ExtensionError

PAGE = "reference/api"
MODULES = ("funcdiff", "funcdiff.distributed", "funcdiff.measure", "funcdiff.plots")


def public_names():
    """Every public function and class by its full name; constants are described where they are used."""
    for path in MODULES:
        module = importlib.import_module(path)
        yield from (f"{path}.{name}" for name in module.__all__ if callable(getattr(module, name)))


def require_entries(app, env):
    """Once every page is read, compare the public names with those that the reference documents."""
    if PAGE not in env.found_docs:  # a site without a reference
        return
    documented = {name for name, *_ in env.domains.python_domain.get_objects()}
    if missing := [name for name in public_names() if name not in documented]:
        raise ExtensionError(f"docs/{PAGE}.rst: no entry for {', '.join(missing)}")


def name_functions(app, what, name, obj, options, signature, returns):
    """Write a function that is a default by its name."""
    del app, what, name, obj, options
    return signature and re.sub(r"<function (\w+)[^>]*>", r"\1", signature), returns


def setup(app):
    """Check when all is read, and write each signature."""
    app.connect("env-check-consistency", require_entries)
    app.connect("autodoc-process-signature", name_functions)
    return {"parallel_read_safe": True}
