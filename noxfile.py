"""The project's sessions: `nox --list` names them; `.ci/run` runs what a continuous integration must."""

import atexit
import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"  # the first with `nox.project.dependency_groups` in its final form
nox.options.default_venv_backend = "virtualenv"  # pip-backed: the constraints file decides which torch is installed
nox.options.reuse_venv = "yes"
nox.options.sessions = ["docs", "tests", "lint"]

# Threads that wait for each other on shared cores stall for long; what measures threads sets their number itself.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

# A worker out of work takes half of the other's, so that tests of one browser window stay together.
SPREAD = ["-n", "2", "--dist", "worksteal"]

TOOLS = {**ONE_THREAD, "PYTHONPATH": "docs"}  # from where `docs/_tools` are imported

ROOT = Path(__file__).parent
SITE = ROOT / "docs" / "_build" / "html"
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def install(session, *requirements, groups=()):
    """Install `requirements` and dependency groups at the versions that the constraints file pins."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PROJECT, *groups), *requirements)


def build_site(session, *options):
    """Build the HTML site; warnings are errors."""
    install(session, "-e", ".[gallery]", groups=["docs"])
    args = ["-b", "html", "-n", "-W", "--keep-going", *options, "docs", str(SITE), *session.posargs]
    session.run("sphinx-build", *args, env=ONE_THREAD)
    # Printed when nox itself is done, hence its last line.
    atexit.register(print, f"The site: {SITE / 'index.html'}")


@nox.session
def docs(session):
    """Build the site; run every tutorial, unless nothing it depends on has changed since its last run."""
    build_site(session)


@nox.session(name="docs-fast")
def docs_fast(session):
    """Build the site for writing: run only the tutorials whose own source changed."""
    build_site(session, "-t", "fast")


@nox.session
def tests(session):
    """Test the package, its doctests, the gallery's sources and the pages that are computed."""
    install(session, "-e", ".[gallery]", groups=["tests", "docs"])
    session.run("pytest", *SPREAD, *session.posargs, env={**ONE_THREAD, "MPLBACKEND": "agg"})


@nox.session(name="tests-torch")
@nox.parametrize("torch", ["2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0"])
def tests_torch(session, torch):
    """Test the package with each supported PyTorch; the site, whose pages are of the pinned one, is left out."""
    pinned = Path("constraints.txt").read_text()
    constraints = Path(session.create_tmp(), "constraints.txt")
    constraints.write_text(re.sub("^torch==.*", f"torch=={torch}", pinned, flags=re.MULTILINE))
    groups = nox.project.dependency_groups(PROJECT, "tests", "docs")
    session.install("-c", str(constraints), "-e", ".[gallery]", f"torch=={torch}", *groups)
    session.run("pytest", *SPREAD, *session.posargs, env={**ONE_THREAD, "MPLBACKEND": "agg"})


@nox.session
def lint(session):
    """Check style, types and spelling."""
    install(session, "-e", ".[gallery]", groups=["lint"])
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("codespell")


@nox.session(name="docs-check")
def docs_check(session):
    """Check, in seconds, references, API entries and syntax: nothing is executed and no page is written."""
    install(session, "-e", ".[gallery]", groups=["docs"])
    # The figures that pages show are what a tutorial's run would draw.
    options = ["-D", "computed=0", "-D", "suppress_warnings=image.not_readable"]
    session.run("sphinx-build", "-b", "dummy", "-n", "-W", "--keep-going", *options, "docs", "docs/_build/check")


@nox.session
def linkcheck(session):
    """Ask the network whether the addresses that the site links to exist; tutorials are not run."""
    install(session, "-e", ".[gallery]", groups=["docs"])
    session.run("sphinx-build", "-b", "linkcheck", "-D", "computed=0", "docs", "docs/_build/linkcheck")


@nox.session
def build(session):
    """Build wheel and sdist, and import each in a clean environment."""
    shutil.rmtree("dist", ignore_errors=True)
    session.install("-c", "constraints.txt", "build", "twine")
    session.run("python", "-m", "build")
    distributions = sorted(map(str, Path("dist").iterdir()))
    session.run("twine", "check", "--strict", *distributions)
    for distribution in distributions:
        session.install("-c", "constraints.txt", "--force-reinstall", "--no-deps", distribution)
        install(session, distribution)
        # Outside the checkout, so that nothing but the installed package can be imported.
        with session.chdir(session.create_tmp()):
            session.run("python", "-c", "import funcdiff, funcdiff.measure; print(funcdiff.__file__)")


@nox.session
def site(session):
    """Open the built site in a browser, and run the downloads in an environment with only the wheel."""
    if not (SITE / "index.html").exists():
        session.error(f"no site in {SITE}: run `nox -s docs` first")
    install(session, "build", groups=["site"])
    wheels = Path(session.create_tmp(), "wheels")
    shutil.rmtree(wheels, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(wheels))
    (wheel,) = wheels.glob("*.whl")
    install(session, f"{wheel}[gallery]")
    session.install("--force-reinstall", "--no-deps", str(wheel))  # of the same version, pip would keep the last one
    session.run("pytest", "-c", "tests/site/pytest.ini", *SPREAD, "tests/site", *session.posargs, env=ONE_THREAD)


@nox.session
def faults(session):
    """Plant each fault that must never pass silently, and see the build fail."""
    install(session, "-e", ".[gallery]", "pytest", groups=["docs"])
    session.run("pytest", "-c", "tests/faults/pytest.ini", "tests/faults", *session.posargs, env=ONE_THREAD)


@nox.session
def prepared(session):
    """Judge prepared derivatives of operators and layers, or those named; "fuzz 0 1500", "networks": random ones."""
    install(session, "-e", ".[gallery]", groups=["tests"])
    if session.posargs[:1] == ["networks"]:
        session.run("python", "-m", "_tools.bench.prepared", *session.posargs[1:], env=TOOLS)
    elif session.posargs[:1] == ["fuzz"]:
        session.run("python", "tests/prepared_fuzz.py", *session.posargs[1:], env=ONE_THREAD)
    else:
        session.run("python", "tests/prepared_soundness.py", *session.posargs, env=TOOLS)


@nox.session
def planning(session):
    """Time what a first call takes for its plan and check, over random networks."""
    install(session, "-e", ".[gallery]", groups=["tests"])
    session.run("python", "-m", "_tools.bench.planning", *session.posargs, env=TOOLS)


@nox.session
def unqualified(session):
    """Judge every name without a mode on torch's databases, or on those named: alone, in a batch and once more."""
    install(session, "-e", ".[gallery]", groups=["tests"])
    session.run("python", "tests/unqualified_soundness.py", *session.posargs, env=TOOLS)


@nox.session
def patterns(session):
    """Hold sparse patterns to torch's whole operator database, and to thousands of random compositions."""
    install(session, "-e", ".[gallery]", groups=["tests"])
    session.run("python", "tests/pattern_soundness.py", env=ONE_THREAD)
    session.run(
        "python", "tests/test_sparse_compositions.py", *session.posargs, env=ONE_THREAD
    )  # --first SEED --number COUNT


@nox.session
def fuzz(session):
    """Differentiate random functions by the automatic recipes; after `--`, the first seed and the number of them."""
    install(session, "-e", ".[gallery]", groups=["tests"])
    session.run(
        "python", "-m", "fuzz.run", *(session.posargs or ("0", "5000")), env=ONE_THREAD | {"PYTHONPATH": "tests"}
    )


@nox.session
def clients(session):
    """Differentiate code of other packages, which are no dependencies of this one."""
    install(session, "-e", ".", groups=["clients"])
    session.run("pytest", "-c", "tests/clients/pytest.ini", "tests/clients", *session.posargs, env=ONE_THREAD)


@nox.session(name="sparse-evidence")
def sparse_evidence(session):
    """Measure sparse derivatives beside their goals; `-- --stiff 64` solves a stiff equation as well."""
    install(session, "-e", ".[gallery]", groups=["tests"])
    session.run("python", "tests/sparse_evidence.py", *session.posargs, env=TOOLS)


@nox.session
def picture(session):
    """Draw the README's picture anew."""
    install(session, "-e", ".[gallery]")
    session.run("python", "docs/picture.py")


KNOWN = "src/funcdiff/_safety/wrong_in"  # a file for each version of torch
CHANGES = "docs/reference/changes.json"


@nox.session
def atlas(session):
    """Differentiate every operator by every recipe anew, for the atlas; after `--`, only by those named."""
    install(session, "-e", ".[gallery]", groups=["tests"])
    session.run("python", "-m", "_tools.atlas.run", "docs/reference/atlas.json", KNOWN, *session.posargs, env=TOOLS)
    session.run("python", "-m", "_tools.atlas.changes", CHANGES, env=TOOLS)


@nox.session(name="atlas-of")
def atlas_of(session):
    """Find what another torch gets wrong: `-- 2.15.0`; with `scripts` after it, only run the scripts of changes."""
    version, *rest = session.posargs
    install(session, "-e", ".[gallery]", groups=["tests"])
    session.install(f"torch=={version}")  # in place of the one that the constraints pin
    made = [] if rest else [f"build/atlas-{version}.json"]
    if made:
        Path("build").mkdir(exist_ok=True)
        session.run("python", "-m", "_tools.atlas.run", *made, KNOWN, "compared", env=TOOLS)
    session.run("python", "-m", "_tools.atlas.changes", CHANGES, *made, env=TOOLS)


@nox.session
def bench(session):
    """Measure every goal and the peers side by side on one core, for the page of benchmarks."""
    install(session, "-e", ".", groups=["bench"])
    session.run("python", "-m", "_tools.bench.run", "docs/reference/bench.json", *session.posargs, env=TOOLS)


@nox.session
def scaling(session):
    """Measure products over 1, 2 and 4 processes of this machine, for the page on scaling."""
    install(session, "-e", ".")
    session.run("python", "-m", "_tools.scaling.run", "docs/reference/scaling.json", env=TOOLS)


@nox.session
def gpu(session):
    """Measure on a GPU and on its machine's processor, for the page of GPU figures; without a GPU it says so."""
    install(session, "-e", ".[gallery]")
    kept = "docs/reference/gpu.json" if session.posargs == ["keep"] else str(Path(session.create_tmp(), "gpu.json"))
    session.run("python", "-m", "_tools.gpu.run", kept, env=TOOLS)
