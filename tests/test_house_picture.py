"""The picture of the package: from the real imports, every arrow down, no room on another."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from sphinx.errors import ExtensionError

from _ext.shown import house


def test_imports_are_read_from_the_sources():
    found = house.imports()
    assert {"recipes", "_automatic", "_torch", "plots", house.FACE, house.TUTORIALS} <= found.keys()
    assert {"_automatic", "checks", "recipes"} <= found[house.FACE]
    assert "measure" in found["plots"]
    assert "plots" not in found["measure"]
    assert not {room for room in found[house.TUTORIALS] if room.startswith("_")}
    assert all(house.held(room) for room in found)


def test_a_circle_fails_the_build():
    with pytest.raises(ExtensionError, match="in a circle, among measure, plots"):
        house.floors({"gallery": {"plots"}, "measure": {"plots"}, "plots": {"measure"}})


def test_arrows_that_others_imply_are_left_out():
    assert house.arrows({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == [("a", "b"), ("b", "c")]


def test_every_arrow_leads_down_and_no_room_covers_another():
    found = house.imports()
    at, lines = house.places(found)
    for line in lines:
        heights = [at[point][1] for point in line]
        assert heights == sorted(set(heights))
    boxes = sorted((y, x) for room, (x, y) in at.items() if room in found)
    for (y, x), (below, right) in pairwise(boxes):
        assert below > y or right - x > house.BOX
    drawn = ElementTree.fromstring(house.picture(found))
    assert len(drawn.findall(".//rect")) == len(found)
    assert len(drawn.findall(".//path")) == len(lines)
