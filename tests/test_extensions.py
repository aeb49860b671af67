"""Who imports whom in docs/_ext and docs/_tools: extensions lead from shown to pages to gallery, tools know none."""

import ast
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MAY_IMPORT = {
    "_ext/gallery": {"_ext.gallery"},
    "_ext/pages": {"_ext.gallery", "_ext.pages"},
    "_ext/shown": {
        "_ext.gallery",
        "_ext.pages",
        "_ext.shown",
        "_tools.atlas",
        "_tools.bench",
        "_tools.finder",
        "_tools.scaling",
    },
    "_tools/atlas": {"_tools.atlas"},
    "_tools/bench": {"_tools.bench"},
    "_tools/gpu": {"_tools.bench", "_tools.gpu"},
    "_tools/scaling": {"_tools.bench", "_tools.scaling"},
    "_tools/finder": {"_tools.atlas", "_tools.finder"},
}


def test_every_folder_has_its_rule():
    folders = {
        path.parent.relative_to(DOCS).as_posix() for root in ("_ext", "_tools") for path in DOCS.glob(f"{root}/*/*.py")
    }
    assert folders == MAY_IMPORT.keys()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_arrows_lead_one_way(folder):
    for file in (DOCS / folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.split(".")[0] in ("_ext", "_tools"):
                assert ".".join(module.split(".")[:2]) in MAY_IMPORT[folder], f"{file}: {module}"
