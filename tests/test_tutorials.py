"""What a tutorial's kept output depends on."""

import pytest

from _ext.gallery import tutorials

FILES = [
    "src/funcdiff/__init__.py",
    "src/funcdiff/room/data.json",
    "docs/_ext/gallery/cards.py",
    "docs/_ext/shown/atlas_static/atlas.css",
    "docs/_tools/finder/model.py",
    "docs/conf.py",
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(tutorials, "ROOT", tmp_path)
    monkeypatch.setattr(tutorials, "DOCS", tmp_path / "docs")
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_the_package_and_of_the_site_counts(project, name):
    before = tutorials.fingerprint()
    assert tutorials.fingerprint() == before
    (project / name).write_text("2")
    assert tutorials.fingerprint() != before


def test_a_file_that_moves_counts(project):
    before = tutorials.fingerprint()
    (project / FILES[1]).rename(project / "src" / "data.json")
    assert tutorials.fingerprint() != before


def test_what_python_compiles_does_not_count(project):
    before = tutorials.fingerprint()
    (project / "src" / "__pycache__").mkdir()
    (project / "src" / "__pycache__" / "module.pyc").write_bytes(b"1")
    assert tutorials.fingerprint() == before
