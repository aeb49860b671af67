"""Inventories of the packages we link to, written from what is installed: a build needs no network to resolve a link.

Where a package documents a name follows from its kind, so an address can be computed; `nox -s linkcheck` asks the
network whether each address that a page uses exists.
"""

import builtins
import importlib
import inspect
from pathlib import Path
from types import SimpleNamespace

from sphinx.util.inventory import InventoryFile

ADDRESSES = {
    "python": "https://docs.python.org/3",
    "torch": "https://docs.pytorch.org/docs/stable",
    "numpy": "https://numpy.org/doc/stable",
    "matplotlib": "https://matplotlib.org/stable",
    "scipy": "https://docs.scipy.org/doc/scipy",
}
# Modules whose public names each have a page of their own, with the pattern of its address.
_OWN_PAGES = {
    "torch": (
        "generated/{name}.html",
        [
            *("torch", "torch.Tensor", "torch.func", "torch.linalg", "torch.optim"),
            *("torch.autograd", "torch.autograd.functional", "torch.autograd.forward_ad"),
            *("torch.nn", "torch.nn.functional"),
        ],
    ),
    "numpy": ("reference/generated/{name}.html", ["numpy", "numpy.linalg", "numpy.testing", "numpy.random"]),
    "matplotlib": ("api/_as_gen/{name}.html", ["matplotlib.pyplot", "matplotlib.axes.Axes"]),
    "scipy": (
        "reference/generated/{name}.html",
        ["scipy.optimize", "scipy.sparse.linalg", "scipy.linalg"],
    ),
}
# Names that share a page with others.
_SHARED_PAGES = {
    "torch": {
        "torch.Tensor": ("class", "tensors.html"),
        "torch.dtype": ("class", "tensor_attributes.html"),
        "torch.device": ("class", "tensor_attributes.html"),
        "torch.func": ("module", "func.html"),
        "torch.profiler.profile": ("class", "profiler.html"),
    },
    "matplotlib": {
        "matplotlib.figure.Figure": ("class", "api/_as_gen/matplotlib.figure.Figure.html"),
        "matplotlib.axes.Axes": ("class", "api/_as_gen/matplotlib.axes.Axes.html"),
    },
}
_STDLIB = ["collections.abc", "contextlib", "functools", "itertools", "pathlib", "time", "typing", "warnings"]


def _role(thing):
    if inspect.isclass(thing):
        return "exception" if issubclass(thing, BaseException) else "class"
    return "function" if callable(thing) else "data"


def _owner(path):
    """The module or class called `path`."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _public(owner):
    """Yield the name and the value of each public class and function of a module or class."""
    for name in getattr(owner, "__all__", dir(owner)):
        thing = getattr(owner, name, None)
        if callable(thing) and not name.startswith("_"):
            yield name, thing


def _own_pages(pattern, owners):
    for path in owners:
        owner = _owner(path)
        for attribute, thing in _public(owner):
            name = f"{path}.{attribute}"
            yield name, "method" if inspect.isclass(owner) else _role(thing), pattern.format(name=name)


def _stdlib():
    for name, thing in _public(builtins):
        page = "exceptions" if _role(thing) == "exception" else "functions"
        yield name, _role(thing), f"library/{page}.html"
    yield from ((name, "data", "library/constants.html") for name in ("None", "True", "False", "NotImplemented"))
    for module in _STDLIB:
        yield module, "module", f"library/{module}.html"
        for name, thing in _public(importlib.import_module(module)):
            yield f"{module}.{name}", _role(thing), f"library/{module}.html"


def objects(package):
    """Yield (name, role, page) of each public object of `package`."""
    if package == "python":
        yield from _stdlib()
    else:
        yield from _own_pages(*_OWN_PAGES[package])
        yield from ((name, *entry) for name, entry in _SHARED_PAGES.get(package, {}).items())


class _Domain(SimpleNamespace):
    def get_objects(self):
        return [(name, name, role, page, name, 1) for name, role, page in sorted(set(self.objects))]


def write(folder):
    """Write one inventory a package into `folder`; return the `intersphinx_mapping` that reads them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    builder = SimpleNamespace(get_target_uri=lambda page: page)
    for package in ADDRESSES:
        domain = _Domain(name="py", objects=objects(package))
        env = SimpleNamespace(
            config=SimpleNamespace(project=package, version=""),
            domains=SimpleNamespace(sorted=lambda domain=domain: [domain]),
        )
        InventoryFile.dump(str(folder / f"{package}.inv"), env, builder)
    return {package: (address, str(folder / f"{package}.inv")) for package, address in ADDRESSES.items()}
