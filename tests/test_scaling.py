"""The page on scaling: its model sends what is counted, its figures follow from it, and its sentences from the file."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from _ext.shown import scaling
from _tools.scaling import model
from _tools.scaling.model import COUNTS, ETHERNET, FABRIC, LARGE, SMALL
from funcdiff.distributed.processes import TAIL

DATA = json.loads((Path(__file__).parents[1] / "docs" / "reference" / "scaling.json").read_text())


def text(part, data=DATA):
    return " ".join(node.astext() for node in scaling.PARTS[part](data))


def test_the_model_has_the_products_numbers():
    assert DATA["flops"] == pytest.approx(model.FLOPS, rel=0.01)
    assert model.sent(100, 8, 2) == 8 * (100 + TAIL)
    assert model.sent(100, 8, 4) == 1.5 * 8 * (100 + TAIL)


def test_a_sum_takes_no_time_alone_and_then_ever_more():
    for link in (ETHERNET, FABRIC):
        times = [model.all_reduce(1e6, 4, link, p) for p in COUNTS]
        assert times[0] == 0
        assert times == sorted(times)
        ring = 2 * link.latency + 4 * (1e6 + TAIL) / link.bandwidth
        assert times[1] == pytest.approx(ring)


def test_a_second_process_pays_from_the_rows_that_the_model_tells():
    for network in (SMALL, LARGE):
        for link in (ETHERNET, FABRIC):
            rows = model.rows_worth(network, link)
            assert model.strong(network, link, 2, rows) == pytest.approx(1)
            assert model.strong(network, link, 2, 1.1 * rows) > 1 > model.strong(network, link, 2, 0.9 * rows)


def test_the_shares_fall_from_all_to_the_last():
    for network, link, _ in scaling.LINES:
        shares = [model.weak(network, link, p) for p in COUNTS]
        assert shares[0] == 1
        assert shares == sorted(shares, reverse=True)


def test_the_picture_is_well_formed_and_described():
    (drawing,) = ElementTree.fromstring(scaling.picture("told"))
    left, top, width, height = map(float, drawing.attrib["viewBox"].split())
    labels = list(drawing.iter("text"))
    assert all(left <= float(node.attrib["x"]) <= width and top <= float(node.attrib["y"]) <= height for node in labels)
    hues = [re.search("#[0-9a-f]{6}", line.attrib["style"])[0] for line in drawing.iter("polyline")]
    assert re.findall("#[0-9a-f]{6}", scaling.legend()) == hues
    assert len(set(hues)) == len(scaling.LINES)


def test_it_says_what_was_modelled_and_what_disturbed_a_measurement():
    assert "Modelled, not measured" in text("figure")
    assert "Other programs ran" in text("conditions", DATA | {"load": 20.0})
    assert "Other programs ran" not in text("conditions", DATA | {"load": 2.0})


def test_the_overhead_is_told_with_its_reason():
    cases = [case | {"overhead": 1.5 if case["rows"] == 100 else 1.02} for case in DATA["cases"]]
    told = text("overhead", DATA | {"cases": cases})
    assert "takes 50.0% longer" in told
    assert "takes 2.0% longer" in told
    assert "for any number of rows" in told
