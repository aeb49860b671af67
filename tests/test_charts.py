"""Charts in HTML: each ratio at its place on a logarithmic axis."""

import re

import pytest

from _ext.shown.chart import LEAST, Mark, chart, kind_of, legend


def places(html, what):
    return [float(left) for left in re.findall(rf"<{what} [^>]*?style='left:([\d.]+)%", html)]


def test_equal_factors_are_equally_far_apart():
    html = chart(
        [Mark(name, value, value, value, f"{value}×") for name, value in [("a", 1), ("b", 10), ("c", 100)]], "times"
    )
    one, ten, hundred = places(html, "b")
    assert ten - one == pytest.approx(hundred - ten, abs=0.02)
    assert all(0 <= place <= 100 for place in (one, ten, hundred))
    assert re.findall(r"%'>([\d.]+)×</span>", html) == ["1", "10", "100"]


def test_one_is_always_on_the_axis_and_what_is_too_small_at_its_edge():
    html = chart([Mark("nothing", 1e-4, 1e-5, 1e-3, "≈ 0"), Mark("much", 8, 7, None, "8×")], "times")
    assert "tick one" in html
    assert places(html, "b")[0] == 0
    assert LEAST < 1


def test_a_goal_and_an_interval_are_drawn_and_names_escaped():
    html = chart([Mark("a<b>", 2, 1.5, 3, "2×", ours=True, goal=2.5)], "times")
    assert "a&lt;b&gt;" in html
    assert "chart-row ours" in html
    low, wide = re.search(r"class='bar' style='left:([\d.]+)%;width:([\d.]+)%", html).groups()
    (goal,) = re.findall(r"class='goal' style='left:([\d.]+)%", html)
    assert float(low) < places(html, "b")[0] < float(goal) < float(low) + float(wide)


def test_each_kind_of_method_has_a_colour_and_a_symbol():
    names = {
        "hessian_taylor": "funcdiff",
        "torch.compile of torch.func.hessian": "torch.compile",
        "vmap of torch.func.jacrev": "torch.func",
        "torch.autograd.functional.hvp": "plain autograd",
        "JAX 0.10.2, jit of hessian": "JAX",
        "curvlinops 3.0.1, HessianLinearOperator": "curvlinops",
        "its matrix products alone": "arithmetic alone",
    }
    assert {name: kind_of(name)[0] for name in names} == names
    assert len({kind_of(name)[1:] for name in names}) == len(names)
    assert legend(list(names)).index("funcdiff") < legend(list(names)).index("torch.func")
