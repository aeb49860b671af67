"""What the recipe finder's page is computed from, held against the package on real networks."""

import json
from dataclasses import replace
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import funcdiff
from _tools.finder import answers, model, script
from _tools.finder.model import NEEDS, Question, candidates
from funcdiff._automatic import planning
from funcdiff._automatic.costs import FORMULAS
from funcdiff._safety.known_wrong import INSIDE_TRANSFORM
from funcdiff._safety.obstacles import Obstacles
from funcdiff.measure import count

GRID = [
    Question("Hessian", inputs, outputs, 0, width, layers, norm)
    for (inputs, outputs), width, layers, norm in product([(1, 1), (5, 25), (40, 1)], [2, 70], [1, 2, 5], model.NORMS)
]


def network(q):
    """The network that the question describes, of one row."""
    sizes = [q.inputs, *[q.width] * q.layers]
    norms = {"none": nn.Identity, "layer norm": nn.LayerNorm, "batch norm": nn.BatchNorm1d}
    hidden = [
        part
        for a, b in pairwise(sizes)
        for part in (nn.Linear(a, b), *([] if q.norm == "none" else [norms[q.norm](b)]), nn.ELU())
    ]
    net = nn.Sequential(*hidden, nn.Linear(q.width, q.outputs)).eval().requires_grad_(False)
    return net if q.norm != "batch norm" else lambda x: net(x[None])[0]


@pytest.mark.parametrize("with_safe_forms", [False, True])
@pytest.mark.parametrize("q", GRID, ids=str)
def test_closed_form_is_the_sketch(q, with_safe_forms):
    subject = Obstacles(network(q), [torch.rand(q.inputs)], "error")
    seen = subject.sketch(with_safe_forms)
    assert model.sketch(q, with_safe_forms) == replace(seen, operators=frozenset())


@pytest.mark.parametrize("rows", [0, 7, 1000])
@pytest.mark.parametrize("need", ["Jacobian", "Hessian"])
@pytest.mark.parametrize("q", GRID[::4], ids=str)
def test_candidates_are_the_plan(q, need, rows):
    plan = planning.make(NEEDS[need], network(q), [torch.rand(q.inputs)], randomness="error", batch=rows or 1)
    found = [c for c in candidates(replace(q, need=need, rows=rows)) if c.recipe != model.GRADIENT]
    expected = [
        (
            INSIDE_TRANSFORM.get(c.name, c.name) if rows else c.name,
            c.cost.flops,
            4 * c.cost.results,
            c.cost.seconds,
        )
        for c in plan.candidates
    ]
    assert [(c.recipe, c.flops, c.result, pytest.approx(c.seconds)) for c in found] == expected


def run(name, net, rows):
    """The recipe as a function of the input."""
    if name == model.GRADIENT:
        gradient = torch.func.grad(lambda x: net(x).squeeze())
        return torch.func.vmap(gradient) if rows else gradient
    recipe = getattr(funcdiff, name)
    if name.startswith("hvp"):
        return lambda x: recipe(lambda x: net(x).sum(), (x,), (torch.ones_like(x),))
    return torch.func.vmap(recipe(net)) if rows else recipe(net)


COUNTED = [
    Question("", inputs, outputs, rows, width, layers)
    for inputs, outputs, rows, width, layers in [
        (5, 25, 100, 1000, 2),
        (20, 1, 0, 100, 3),
        (3, 3, 64, 50, 6),
        (50, 1, 0, 20, 1),
        (4, 1, 16, 64, 8),
        (2, 1, 1000, 20, 2),
    ]
]


@pytest.mark.parametrize("need", NEEDS)
@pytest.mark.parametrize("q", COUNTED, ids=str)
def test_costs_are_those_counted(q, need):
    net = network(q).to("meta")
    x = torch.empty((q.rows, q.inputs) if q.rows else q.inputs, device="meta")
    for found in candidates(replace(q, need=need)):
        counted = count(run(found.recipe, net, q.rows), x)
        result = run(found.recipe, net, q.rows)(x)
        assert found.result == result.numel() * result.element_size()
        assert 0.5 < found.peak / counted.peak_bytes < 2.1
        if found.recipe in model.RECIPES and found.recipe not in FORMULAS:  # shared by rows: the first product
            assert found.flops == pytest.approx(counted.flops, rel=0.05)


def test_products_cost_four_and_six_passes():
    q = Question("Hessian-vector product", 30, 4, 9, 200, 3)
    by_name = {found.recipe: found.flops for found in candidates(q)}
    one = q.rows * model.sketch(q).flops
    assert by_name == {"hvp_double_backward": 4 * one, "hvp_forward_over_reverse": 6 * one}


def test_without_norms_nothing_is_wrong_and_with_them_compositions_are():
    assert not any(answers.wrong("none", need, True)["together"] for need in NEEDS)
    assert "hessian_forward_over_reverse" in answers.wrong("layer norm", "Laplacian", True)["together"]
    assert "hessian_forward_over_reverse" not in answers.wrong("layer norm", "Laplacian", True)["input"]
    assert "hessian_forward_over_forward" in answers.wrong("layer norm", "Laplacian", True)["input"]
    assert answers.wrong("layer norm", "Jacobian", True)["together"] == []
    assert not any(answers.wrong("batch norm", need, True)["together"] for need in NEEDS)


@pytest.mark.parametrize("recipe", model.NEEDS["Hessian"])
def test_on_a_batch_norm_in_evaluation_mode_each_recipe_is_right_by_name_as_explain_says(recipe):
    """With respect to its weight and its input together, and of several outputs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).double().eval()
    net[1].running_var.uniform_(0.5, 2)
    norm = "1.weight"

    def func(z):
        return torch.func.functional_call(net, {norm: z[:5]}, (z[None, 5:],))[0]

    z = torch.randn(8, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian
    expected = slope(lambda z: slope(func, z, create_graph=True), z)
    torch.testing.assert_close(getattr(funcdiff, recipe)(func)(z), expected)
    assert "by name" not in str(funcdiff.explain(funcdiff.hessian(func), z))


def test_model_is_json():
    assert json.loads(json.dumps(model.facts()))["needs"] == NEEDS
    assert json.loads(json.dumps(answers.facts()))["templates"] == answers.TEMPLATES


@pytest.mark.parametrize("q", GRID[::3], ids=str)
@pytest.mark.parametrize("need", NEEDS)
def test_the_page_s_formulas_are_the_package_s(q, need):
    """They are evaluated in Python, which reads the same arithmetic as JavaScript."""

    def value(text, **known):
        return eval(text, {"__builtins__": {}}, known)

    for name in NEEDS[need]:
        q, recipe, norm = replace(q, need=need), model.RECIPES[name], model.NORMS[q.norm][model.has_safe_norms(name)]
        s = model.sketch(q, model.has_safe_norms(name))
        sketched = {part: value(text, q=q, norm=norm, outputs=s.outputs) for part, text in script.sketch().items()}
        assert model.Sketch(**sketched) == s
        page = SimpleNamespace(**sketched)  # all that the page knows of the pass
        counts = {part: value(text, s=page) for part, text in script.recipes()[name].items()}
        of = recipe.formula
        expected = {"flops": of.flops(s), "elements": of.elements(s), "general": of.general(s)}
        assert counts == expected | {"graphs": recipe.graphs(s), "directions": recipe.directions(s)}
        for rows, rates in ((1, of.rates), (7, of.rates_of_rows)):
            known = {"degree": of.degree, "rates": rates, "identity": recipe.identity}
            found = {
                part: value(text, s=page, rows=rows, width=q.width, **known, **counts)
                for part, text in script.cost().items()
            }
            cost, held = of.cost(s, rows), recipe.peak(s, rows, q.width)
            assert found.pop("seconds") == pytest.approx(cost.seconds, rel=1e-12)
            assert found == {"flops": cost.flops, "results": cost.results, "held": held}


def test_written_arithmetic_keeps_its_order():
    a, b = script.Written("a"), script.Written("b")
    assert ((a - (b + 1)) * (a - b) ** 2 + 1 * b + 0).text == "(a - (b + 1)) * (a - b) ** 2 + b"
    assert ((a * b) ** 2 // 2).text == "(a * b) ** 2 / 2"
    assert (a // (a * b)).text == "a / (a * b)"
    assert "(s) => s.elements * (1 + s.inputs) ** 2" in script.script()
