"""The finder, *Which recipe?*, the tutorials and the package recommend the same recipe for the same question."""

from functools import cache
from itertools import pairwise, product

import pytest
import torch
from custom_functions import OldSine
from torch import nn

import funcdiff as fd
from _ext.gallery.cards import answer as answer_of_tutorial
from _ext.gallery.tutorials import GALLERY
from _ext.shown.finder import TUTORIALS, TYPICAL, tutorial_of
from _ext.shown.recipe_answers import ANSWERS
from _tools.finder import answers
from _tools.finder.model import NEEDS, NORMS, Question
from funcdiff import distributed
from funcdiff._automatic.choice import for_rows

SHAPES = [
    (1, 1),
    (3, 2),
    (1, 1000),
    (2, 1),
    (3, 50),
    (5, 25),
    (5, 5),
    (10, 100),
    (20, 1),
    (50, 10),
    (100, 1),
    (100, 1000),
    (300, 3),
]
GRID = [
    Question(need, inputs, outputs, rows, width, layers, norm)
    for need, (inputs, outputs), rows, (width, layers), norm in product(
        NEEDS, SHAPES, [0, 100], [(16, 1), (64, 8), (512, 2)], NORMS
    )
]

# Without a network to build, more shapes and sizes can be asked for.
WIDE = [
    Question(need, inputs, outputs, rows, width, layers)
    for need, inputs, rows, width, layers in product(
        NEEDS, [1, 2, 3, 5, 10, 20, 50, 100, 500, 1000, 2000], [0, 100], [16, 128, 512, 1000, 4000], [1, 2, 8]
    )
    for outputs in sorted(
        {1, 2, 3, 10, 50, 1000, 3 * inputs, 5 * inputs, *(max(1, k) for k in (inputs - 1, inputs // 2))}
    )
]

# When a Jacobian is computed in forward mode, wherever a page says so.
FORWARD = "it uses forward mode if there are many more outputs than inputs, and reverse mode otherwise"
SAYING = [
    *("gallery/jacobians/jacrev_against_jacfwd.py", "gallery/jacobians/six_ways.py", "gallery/jacobians/winner_map.py"),
    *("docs/guides/which_recipe.rst", "docs/explanation/modes.rst", "docs/reference/api.rst"),
    "src/funcdiff/_automatic/choice.py",
]

# Where the finder and the table send their readers.
LED_TO = sorted({row.tutorial for row in ANSWERS} | {page for pages in TUTORIALS.values() for page in pages})


def network(q):
    sizes = [q.inputs, *[q.width] * q.layers]
    norms = {"none": None, "layer norm": nn.LayerNorm, "batch norm": nn.BatchNorm1d}
    hidden = [
        part
        for a, b in pairwise(sizes)
        for part in (nn.Linear(a, b), *([norms[q.norm](b)] if norms[q.norm] else []), nn.Tanh())
    ]
    return nn.Sequential(*hidden, nn.Linear(q.width, q.outputs)).eval().requires_grad_(False)


def chosen(q):
    """The recipe that the package takes on a real network, as `explain` tells it."""
    net, x = network(q), torch.rand(q.inputs)
    f = (lambda x: net(x[None])[0]) if q.norm == "batch norm" else net
    if q.need == "Hessian-vector product":
        return fd.explain(fd.hvp, lambda x: f(x).sum(), (x,), (x,)).recipe
    if q.rows and q.need in ("Jacobian", "Hessian"):
        transform = getattr(fd, answers.AUTOMATIC[q.need][True])
        return fd.explain(transform(f), x.expand(q.rows, -1)).recipe
    kinds = {"Hessian diagonal": "diagonal"}
    return fd.explain(for_rows(kinds.get(q.need, q.need.lower()), q.rows or 1)(f), x).recipe


@cache
def answered(q):
    return answers.answer(q)


def contradictions(rows):
    """Where a row of *Which recipe?* names another call or recipe than the finder, on the questions it is about."""
    found = []
    for row, q in product(rows, [*GRID, *WIDE]):
        if row.asks(q):
            ours = answered(q)
            call = row.call.partition("(")[0]
            if ours.take != call or ours.recipe != row.recipe:
                found.append(f"{row.need}, {row.when}: {call}, {row.recipe}; {q}: {ours.take}, {ours.recipe}")
    return found


def test_which_recipe_says_what_the_finder_says():
    assert contradictions(ANSWERS) == []
    asked = [row for row in ANSWERS if any(map(row.asks, [*GRID, *WIDE]))]
    # For these the finder has no question.
    without = {"hvp_operator", "distributed.hvp_operator", *answers.SPARSE.values(), answers.PREPARED}
    assert {row.call.partition("(")[0] for row in ANSWERS if row not in asked} == without


@pytest.mark.parametrize("change", [{"recipe": "jacobian_taylor"}, {"call": "jacobian_reverse(f)(x)"}])
def test_a_planted_contradiction_is_found(change):
    (row,) = (row for row in ANSWERS if row.need == "a Jacobian" and row.when == "several outputs, m ≤ n")
    assert contradictions([row]) == []
    assert contradictions([row._replace(**change)])
    assert contradictions([row._replace(asks=lambda q: q.need == "Hessian")])


@pytest.mark.parametrize("need", NEEDS)
def test_the_finder_says_what_the_package_does(need):
    for q in GRID:
        if q.need == need and answers.need_of(q) != "Gradient":
            assert answers.answer(q).recipe == chosen(q), q


def test_special_operations_are_handled_as_the_page_says():
    x = torch.rand(3, dtype=torch.float64)
    transform = fd.jacobian(lambda x: OldSine.apply(x.outer(x)).sum(0))
    transform(x)
    assert fd.explain(transform, x).recipe in ("jacobian_batched_grad", "jacobian_loop")
    without_forward = fd.hessian(lambda x: torch.cdist(x.view(3, 1), x.view(3, 1).sin()).sum())
    without_forward(x)
    assert (
        "reverse_over_reverse" in fd.explain(without_forward, x).recipe
        or "double" in fd.explain(without_forward, x).recipe
    )


def test_a_jacobian_of_one_output_is_a_gradient():
    for q in GRID:
        found = answers.answer(q)
        assert (found.take == "torch.func.grad") == (q.need == "Jacobian" and q.outputs == 1)
        assert ("grad(lambda x:" in found.code) == (found.take == "torch.func.grad")


def test_a_tutorial_recommends_no_recipe_that_is_never_chosen():
    """An answer that names a recipe says what the automatic function chooses, for some network at least."""
    shapes = [*product([1, 3, 20, 300, 3000], [1, 3, 30, 1000], [0, 100], [16, 1024], [1, 8])]
    asked = [Question(need, n, m, rows, w, layers) for need in NEEDS for n, m, rows, w, layers in shapes]
    chosen_somewhere = {answers.answer(q).recipe for q in [*asked, *GRID]}
    candidates = {name for q in GRID for name in NEEDS[q.need]} - chosen_somewhere
    assert candidates  # some recipes are never the fastest
    for tutorial in LED_TO:
        assert not names_in(answer_of_tutorial(GALLERY / f"{tutorial}.py")) & candidates, tutorial


@pytest.mark.parametrize("page", SAYING)
def test_forward_mode_is_explained_in_one_sentence(page):
    assert FORWARD in " ".join((GALLERY.parent / page).read_text().split()).lower()


def names_in(text):
    """The functions that an answer names, as roles or as code."""
    names = [*fd.__all__, *(f"distributed.{name}" for name in distributed.__all__), "grad"]
    return {name for name in names if f"funcdiff.{name}`" in text or f"``{name}(" in text}


@pytest.mark.parametrize("tutorial", LED_TO)
def test_a_tutorial_leads_with_what_sends_its_reader_there(tutorial):
    """The answer at its head names the function to call, or the recipe that it chooses."""
    rows = [row for row in ANSWERS if row.tutorial == tutorial]
    expected = {row.call.partition("(")[0] for row in rows} | {row.recipe for row in rows}
    expected |= {name for need, pages in TUTORIALS.items() if tutorial in pages for name in answers.AUTOMATIC[need]}
    expected |= {answers.answer(q).recipe for q in TYPICAL if tutorial_of(q) == tutorial}
    assert names_in(answer_of_tutorial(GALLERY / f"{tutorial}.py")) & expected, (tutorial, expected)


def test_a_recipe_by_name_is_right_with_respect_to_the_input():
    """What the finder offers by name on a norm is right, and what it warns of is wrong."""
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double(),
        torch.rand(3).double(),
    )
    net.requires_grad_(False)
    expected = fd.hessian(net)(x)
    warned = answers.wrong("layer norm", "Hessian", True)
    assert set(warned["input"]) < set(warned["together"])
    for name in warned["together"]:
        error = (getattr(fd, name)(net)(x) - expected).abs().max()
        assert (error > 1e-6) == (name in warned["input"]), name


@pytest.mark.parametrize("norm", [name for name in NORMS if name != "none"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_what_the_finder_warns_of_is_wrong_on_a_norm_and_its_weight(norm, outputs):
    torch.manual_seed(0)
    last = torch.rand(outputs, 4, dtype=torch.float64)

    def func(z):
        x, weight = z.chunk(2)
        if norm == "layer norm":
            return last @ nn.functional.layer_norm(x, (4,), weight).tanh()
        rows, mean = torch.stack([x, x * x]), torch.linspace(0, 1, 4, dtype=torch.float64)
        return last @ nn.functional.batch_norm(rows, mean, mean + 1, weight)[0].tanh()  # as in evaluation

    z = torch.rand(8, dtype=torch.float64)
    expected = fd.hessian(func)(z)
    warned = answers.wrong(norm, "Hessian", outputs > 1)["together"]
    for name in NEEDS["Hessian"]:
        error = (getattr(fd, name)(func)(z) - expected).abs().max()
        assert (error > 1e-6) == (name in warned), name


def test_no_recipe_that_is_wrong_on_a_norm_is_offered_by_name():
    for q in GRID:
        found = answers.answer(q)
        warned = answers.wrong(q.norm, q.need, q.outputs > 1)["together"]
        assert ("# By name" in found.code) == (found.need not in answers.ONE_RECIPE and found.recipe not in warned)
