"""Tutorials: run alike, run anew whenever anything they depend on changed, and never left out without a word."""

import gc
import hashlib
import json
import platform
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from sphinx.errors import ExtensionError

from funcdiff import clear_plans
from funcdiff.measure import document, environment, recording

DOCS = Path(__file__).parents[2]
ROOT = DOCS.parent
GALLERY = ROOT / "gallery"
RUN = DOCS / "tutorials"
_PACKAGES = ["torch", "numpy", "matplotlib", "scipy", "scikit-learn", "sphinx", "sphinx-gallery", "furo"]

_running = {}


def sources():
    """Every tutorial, in a fixed order."""
    return sorted(path for path in GALLERY.rglob("*.py"))


def record_of(source):
    """Where the measurements of the last run of `source` lie."""
    return RUN / source.relative_to(GALLERY).with_suffix(".json")


def _stamp_of(source):
    """Where it stands what the last run of `source` was made from."""
    return record_of(source).with_suffix(".stamp")


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprint():
    """A digest of all that a tutorial's output depends on beside its own source: code, data and versions."""
    folders = [ROOT / "src", DOCS / "_ext", DOCS / "_tools"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()] + [DOCS / "conf.py"]
    contents = [
        f"{path.relative_to(ROOT)} {_digest(path)}" for path in sorted(files) if "__pycache__" not in path.parts
    ]
    versions = [f"{name} {version(name)}" for name in _PACKAGES] + [platform.python_version()]
    return hashlib.sha256("\n".join(contents + versions).encode()).hexdigest()


def drop_stale_output(app, config):
    """Before anything is read, discard what an older package, configuration or library wrote."""
    if not config.computed:  # nothing is executed, hence nothing could take its place
        return
    stamp = RUN / ".fingerprint"
    if app.tags.has("fast"):
        stamp.unlink(missing_ok=True)
        return
    if not stamp.exists() or stamp.read_text() != fingerprint():
        shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(exist_ok=True)
    stamp.write_text(fingerprint())


def reset(gallery_conf, name, when):
    """Give each tutorial the same start, turn its warnings into errors, and keep what it measured.

    Sphinx-Gallery calls this before and after each tutorial, and with `name` None on entering a folder.
    """
    if name is None:
        return
    if when == "before":
        _running["filters"] = warnings.filters[:]
        _running["threads"] = torch.get_num_threads()
        warnings.simplefilter("error")
        # torch 2.13's forward mode compiles a decomposition with torch.jit.script on first use.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        # torch.compile uses functions that torch has deprecated, and instantiates the class of a custom function.
        warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "`torch._prims_common.check` is", FutureWarning)
        warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
        torch.set_warn_always(True)  # else a warning that an earlier tutorial provoked stays silent here
        torch.manual_seed(0)
        torch.set_num_threads(1)
        clear_plans()  # else `explain` would tell of checks that equal functions of an earlier tutorial went through
        gc.collect()
        gc.freeze()  # each measurement collects first, and would walk through all that stands by now
        _running["recording"] = recording()
        _running["log"] = _running["recording"].__enter__()
        return
    _running["recording"].__exit__(None, None, None)
    where = environment()  # before the tutorial's own dtype and threads are undone
    warnings.filters[:] = _running["filters"]
    torch.set_warn_always(False)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(_running["threads"])
    (source,) = GALLERY.rglob(Path(name).name)
    if str(source) in gallery_conf["failing_examples"]:
        return
    page = source.relative_to(GALLERY).with_suffix("").as_posix()
    record = document(_running["log"], page=page, environment=where)
    record_of(source).write_text(json.dumps(record, indent=1))
    _stamp_of(source).write_text(f"{_digest(source)} {fingerprint()}")


def require_execution(app, exception):
    """Fail the build unless every tutorial has run, as it stands, with the package as it stands."""
    if exception or app.builder.name != "html":
        return
    for source in sources():
        where = source.relative_to(ROOT)
        if not _stamp_of(source).exists():
            raise ExtensionError(f"{where} was not executed by this build")
        ran, ran_with = _stamp_of(source).read_text().split()
        if ran != _digest(source):
            raise ExtensionError(f"{where} changed after it was executed")
        if ran_with != fingerprint() and not app.tags.has("fast"):
            raise ExtensionError(f"{where} was executed with another package, configuration or torch")
        target = Path(app.outdir, "measurements", record_of(source).relative_to(RUN))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record_of(source), target)


def setup(app):
    """Connect the checks."""
    app.connect("config-inited", drop_stale_output)
    app.connect("build-finished", require_execution, priority=900)  # after Sphinx-Gallery's own summary
