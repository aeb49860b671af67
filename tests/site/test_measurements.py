"""The measurements that the build published."""

import json

import jsonschema
import pytest
from conftest import SITE

from funcdiff.measure import schema

RECORDS = {path.relative_to(SITE / "measurements"): path for path in sorted((SITE / "measurements").rglob("*.json"))}


@pytest.mark.parametrize("name", RECORDS, ids=str)
def test_record_follows_the_schema_and_names_its_page(name):
    record = json.loads(RECORDS[name].read_text(encoding="utf-8"))
    jsonschema.validate(record, schema())
    page = SITE / "tutorials" / f"{record['page']}.html"
    assert page.exists()
    assert name.with_suffix("").as_posix() == record["page"]
    assert f"measurements/{record['page']}.json" in page.read_text(encoding="utf-8")


def test_every_tutorial_has_a_record():
    pages = {page.relative_to(SITE / "tutorials").with_suffix("") for page in (SITE / "tutorials").glob("*/*.html")}
    measured = {page for page in pages if page.name not in ("index", "sg_execution_times")}
    assert {name.with_suffix("") for name in RECORDS} == measured


def test_reference_lists_every_record():
    listed = (SITE / "reference" / "measurements.html").read_text(encoding="utf-8")
    for name in RECORDS:
        assert f"../measurements/{name.as_posix()}" in listed
