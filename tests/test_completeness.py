"""A recipe is in every place where it belongs; a complaint names the file to edit."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from recipes import NOT_COMPILED

import funcdiff
from funcdiff._automatic import candidates
from funcdiff._automatic.costs import FORMULAS
from funcdiff._safety import known_wrong
from funcdiff.checks.registry import REGISTRY, Entry

ROOT = Path(__file__).parents[1]
NOT_RECIPES = {
    *("check_batch_independence", "check_derivatives", "clear_plans", "explain", "module_function", "ravel"),
    *("hessian_pattern", "jacobian_pattern", "prepare", "Prepared"),
    *("Operator", "over_batches", "Estimate", "RefusedError", "SpectralDensity"),
}


@dataclass(frozen=True)
class Place:
    """Files that must name a recipe, what to write into them, the line to look for, and for which recipes."""

    files: str
    edit: str
    line: str
    applies: Callable[[Entry], bool] = lambda entry: True

    def text(self, entry):
        return (entry.recipe.__doc__ or "") if self.files == "its docstring" else content(self.files)


@functools.cache
def content(files):
    return "\n".join(path.read_text() for pattern in files.split(", ") for path in ROOT.glob(pattern))


PLACES = [
    Place("src/funcdiff/__init__.py", "import it, and add it to __all__", '^    "{name}",$'),
    Place("docs/reference/api.rst", "list it under its heading", "^   {name}$"),
    Place("its docstring", "add an Example with a known answer", r">>> .*\b{name}\("),
    Place("src/funcdiff/plots/style.py", "add its colour to COLOURS", '^    "{name}": [A-Z]+,$'),
    Place("gallery/**/*.py, docs/guides/**/*.rst", "use it in a tutorial or a guide", r"\b{name}\b"),
    Place(
        "src/funcdiff/_safety/wrong_in/2.13.json",
        "run `nox -s atlas -- {name}`",
        '"{name}": ',
        lambda entry: entry.judged,
    ),
    Place(
        "tests/test_*.py",
        "test it: the tests that all recipes share leave out random ones",
        r"\b{name}\b",
        lambda entry: entry.random,
    ),
    Place(
        "tests/recipes.py",
        "say in NOT_COMPILED why the compile test leaves it out",
        '^    "{name}": "',
        lambda entry: entry.random,
    ),
]


def complaint(place, entry, text):
    """What is missing of the recipe in a place, as an instruction; nothing if it is there."""
    if not place.applies(entry) or re.search(place.line.format(name=entry.name), text, flags=re.M):
        return ""
    return f"{entry.name} is missing in {place.files}: {place.edit.format(name=entry.name)}"


def complaint_on_names(names, registry):
    """What is missing in the registry, or public without being there."""
    missing = sorted(set(names) - NOT_RECIPES - {entry.name for entry in registry})
    return f"missing in src/funcdiff/checks/registry.py: {missing}; add an Entry for each" if missing else ""


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_a_recipe_is_in_every_place(entry):
    found = [text for place in PLACES if (text := complaint(place, entry, place.text(entry)))]
    assert not found, "\n".join(found)


def test_every_public_recipe_is_registered_once():
    assert not (found := complaint_on_names(funcdiff.__all__, REGISTRY)), found
    assert len({entry.name for entry in REGISTRY}) == len(REGISTRY)
    for entry in REGISTRY:
        assert getattr(funcdiff, entry.name) is entry.recipe


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("src/funcdiff/_automatic/candidates.py", [*candidates.JACOBIANS, *candidates.HESSIANS, *candidates.PRODUCTS]),
        ("src/funcdiff/_automatic/costs.py", FORMULAS),
        ("src/funcdiff/_safety/known_wrong.py", [*known_wrong.CORRECTED, *known_wrong.INSIDE_TRANSFORM]),
        ("src/funcdiff/_safety/wrong_in", known_wrong.WRONG),
        ("tests/recipes.py", NOT_COMPILED),
    ],
)
def test_other_lists_name_registered_recipes_only(file, names):
    unknown = {name.partition(",")[0] for name in names} - {entry.name for entry in REGISTRY}
    assert not unknown, f"{file} names {sorted(unknown)}, which the registry does not have"


def planted(random):
    """A recipe that no file names; its name is put together here, for this is a file too."""
    recipe = lambda func: func  # noqa: E731  # a def would be named
    recipe.__name__ = "_".join(["a", "new", "recipe"])
    return Entry(recipe, "laplacian", random=random)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.files)
def test_a_recipe_that_is_nowhere_is_missed_in_every_place(place):
    found = [complaint(place, entry, place.text(entry)) for entry in (planted(random=False), planted(random=True))]
    assert any(found)
    assert {text.partition(":")[0] for text in found if text} == {f"{planted(False).name} is missing in {place.files}"}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.files)
def test_a_recipe_that_is_taken_out_of_a_place_is_missed_there(place):
    for entry in REGISTRY:
        without = re.sub(rf"\b{entry.name}\b", "", place.text(entry))
        assert bool(complaint(place, entry, without)) == place.applies(entry)


def test_a_name_that_is_not_registered_is_missed():
    found = complaint_on_names([*funcdiff.__all__, planted(False).name], REGISTRY)
    assert found == f"missing in src/funcdiff/checks/registry.py: {[planted(False).name]}; add an Entry for each"
    assert "['vhp']" in complaint_on_names(funcdiff.__all__, [entry for entry in REGISTRY if entry.name != "vhp"])
