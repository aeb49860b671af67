"""The recipe finder in a browser: its answers are the package's, its code runs, and a keyboard is enough."""

from dataclasses import asdict, replace
from itertools import pairwise, product

import pytest
import torch
from conftest import SITE
from torch.func import hessian, jacrev, vmap

from _tools.finder import answers
from _tools.finder.model import NEEDS, NORMS, Question

SIZES = [(1, 1, 0, 1, 1), (5, 25, 100, 1000, 2), (300, 1, 0, 40, 3), (3, 2, 1000, 64, 6), (2000, 10, 7, 20, 1)]
GRID = [
    Question(need, inputs, outputs, rows, width, layers, norm)
    for need, (inputs, outputs, rows, width, layers), norm in product(NEEDS, SIZES, NORMS)
]
# Small ones, whose derivatives are quickly taken; each answer of the finder's is among them.
RUN = [
    Question(need, inputs, outputs, rows, width, 2, norm)
    for need, norm, rows, (inputs, outputs), width in product(
        NEEDS, NORMS, [0, 3], [(2, 3), (4, 1), (1, 40), (40, 1)], [8, 400]
    )
]


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((SITE / "index.html").as_uri())
    yield page
    page.close()


def asked(page, questions):
    return page.evaluate("questions => questions.map(funcdiffFinder)", [asdict(q) for q in questions])


def test_answers_are_those_of_the_package(page):
    for q, answer in zip(GRID, asked(page, GRID), strict=True):
        ours = answers.answer(q)
        assert {name: answer[name] for name in ("need", "take", "recipe", "code")} == {
            name: getattr(ours, name) for name in ("need", "take", "recipe", "code")
        }
        expected = [asdict(found) for found in ours.candidates]
        for found, wanted in zip(answer["candidates"], expected, strict=True):
            assert found.pop("recipe") == wanted.pop("recipe"), q
            assert found == pytest.approx(wanted, rel=1e-9), q
        assert answer["wrong"] == answers.wrong(q.norm, q.need, q.outputs > 1)


def network(q):
    sizes = [q.inputs, *[q.width] * q.layers]
    norms = {"none": torch.nn.Identity, "layer norm": torch.nn.LayerNorm, "batch norm": torch.nn.BatchNorm1d}
    hidden = [part for a, b in pairwise(sizes) for part in (torch.nn.Linear(a, b), norms[q.norm](b), torch.nn.Tanh())]
    return torch.nn.Sequential(*hidden, torch.nn.Linear(q.width, q.outputs)).requires_grad_(False)


def by_torch(q, net, x, v):
    """The derivative by torch's own transforms, forward over reverse: right by the input, whatever the norm."""
    func = (lambda x: net(x[None])[0]) if q.norm == "batch norm" else net
    rows = (lambda transform: vmap(transform(func))) if q.rows else (lambda transform: transform(func))
    if q.need == "Jacobian":  # of one output a gradient
        return rows(jacrev)(x).squeeze(-2) if q.outputs == 1 else rows(jacrev)(x)
    second = rows(hessian)(x)
    diagonal = second.diagonal(dim1=-2, dim2=-1)
    return {
        "Hessian": second,
        "Hessian-vector product": None if v is None else torch.einsum("...oij,...j->...i", second, v),
        "Hessian diagonal": diagonal,
        "Laplacian": diagonal.sum(-1),
    }[q.need]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by torch's forward mode
def test_code_runs_and_is_right(page, double):
    ran = set()
    for q, answer in zip(RUN, asked(page, RUN), strict=True):
        net = network(q)
        names = {"net": net}
        for code in answer["code"].split("# By name"):  # first the automatic function, then the recipe
            exec(code.removeprefix(", the recipe that it chooses here:"), names)
            expected = by_torch(q, net, names.get("X", names.get("x")), names.get("V", names.get("v")))
            torch.testing.assert_close(names["result"], expected, rtol=1e-6, atol=1e-9, msg=lambda m, q=q: f"{q}: {m}")
        assert f"# shape {tuple(expected.shape)}" in answer["code"]
        ran.add(answer["recipe"])
    assert len(ran) >= 6, ran


@pytest.mark.parametrize("width", [1280, 390])
def test_code_changes_and_the_table_stays_in_place(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    code, status = page.locator(".finder-code"), page.locator(".finder-answer")
    assert "batch_hessian(net)(X)" in code.inner_text()
    place = "document.querySelector('.finder-rest').offsetTop - document.querySelector('#finder').offsetTop"
    before = page.evaluate(place)
    assert before > 0
    for q in (replace(q, rows=q.rows or 1) for q in GRID):
        page.select_option("[name=need]", q.need)
        page.select_option("[name=norm]", q.norm)
        for name in ("inputs", "outputs", "rows", "width", "layers"):
            page.fill(f"[name={name}]", str(getattr(q, name)))
        assert page.evaluate(place) == before, q
        assert code.inner_text() == asked(page, [q])[0]["code"]
    page.fill("[name=inputs]", "-3")
    assert "whole numbers" in status.inner_text()


def test_keyboard_alone(page):
    page.locator("[name=need]").focus()
    page.keyboard.type("Lap")
    assert "laplacian(net)" in page.locator(".finder-code").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.type("7")
    assert "torch.randn(100, 7)" in page.locator(".finder-code").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert "torch.randn(7)" in page.locator(".finder-code").inner_text()
    page.keyboard.press("Enter")
    assert page.url.endswith("index.html")
    assert page.locator("[name=rows]").is_disabled()


def test_code_is_copied(browser, address):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{address}/index.html")
    page.fill("[name=inputs]", "9")
    page.locator("#finder .highlight").hover()
    page.locator("#finder button.copybtn").click()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator(".finder-code").inner_text()
    context.close()


def test_without_script_a_table_says_the_same(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((SITE / "index.html").as_uri())
    assert not page.locator("#finder").is_visible()
    table = page.locator("noscript table").inner_text()
    for recipe in ("jacobian_taylor", "hessian_taylor", "hvp_double_backward", "laplacian", "torch.func.grad"):
        assert recipe in table
    context.close()


@pytest.mark.parametrize("tutorial", ["rows", "point", "norm"])
def test_each_answer_leads_to_a_page(page, tutorial):
    pages = page.evaluate("Object.values(JSON.parse(document.getElementById('finder-model').textContent).tutorials)")
    for found in pages:
        assert (SITE / found[tutorial][0]).exists()
