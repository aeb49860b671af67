import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_readme_picture_shows_the_counts_of_today():
    picture = runpy.run_path(str(ROOT / "docs" / "picture.py"))
    drawn = picture["PICTURE"].read_text(encoding="utf-8")
    assert picture["PICTURE"].relative_to(ROOT).as_posix() in (ROOT / "README.md").read_text(encoding="utf-8")
    counted = picture["costs"]()
    assert picture["title"](counted) in drawn
    for name, cost in counted.items():
        assert name in drawn
        for part in picture["PANELS"]:
            assert picture["label"](cost, part) in drawn
