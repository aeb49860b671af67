"""The table of what to avoid in the derivative atlas: for each operator the recipes that are wrong on it."""

from __future__ import annotations

from collections.abc import Iterable

from _ext.shown.grid import base, breaking
from _tools.atlas.data import Atlas, Entry, mode_names, wrong


def avoid_table(atlas: Atlas, known: dict[str, list[str]]) -> str:
    """Operator, the recipes that are wrong with it, what is right in their place, and where it was seen."""
    rows = []
    for operator in sorted({name for names in known.values() for name in names}):
        modes = [mode for mode in mode_names(atlas) if operator in known[mode]]
        seen = [
            e
            for e in atlas["entries"]
            if any(operator in names for names in e["operators"]) and set(modes) & set(wrong(e))
        ]
        instead = [_instead(names, modes, seen) for names in atlas["modes"].values()]
        cells = [
            _names(_worst(seen, modes)),
            ", ".join(filter(None, instead)),
            breaking(", ".join(entry["name"] for entry in seen)),
        ]
        rows.append([f"<code>{breaking(operator)}</code>", *cells])
    return _table("derivative-atlas-avoid", ["operator", "wrong, by up to", "right instead", "seen in"], rows)


def _worst(seen: Iterable[Entry], modes: Iterable[str]) -> dict[str, str]:
    errors = {mode: max((wrong(entry).get(mode, 0.0) for entry in seen), default=0.0) for mode in modes}
    return {mode: f"{error:.2g}" for mode, error in errors.items() if mode == base(mode) or base(mode) not in errors}


def _instead(names: list[str], modes: list[str], seen: list[Entry]) -> str:
    """The first of these recipes that was right wherever one of them was wrong."""
    bad = [mode for mode in names if mode in modes]
    where = [entry for entry in seen if set(bad) & set(wrong(entry))]
    good = [mode for mode in names if all(entry["modes"][mode]["outcome"] == "right" for entry in where)]
    if not where or all(mode != base(mode) for mode in bad):
        return ""
    return breaking(next(iter(good), f"none of the {next(iter(names)).partition('_')[0]} recipes"))


def _names(modes: dict[str, str]) -> str:
    """Recipes, each with what is to be said of it."""
    return ", ".join(f"{breaking(mode)} {note}" for mode, note in modes.items())


def _table(name: str, headers: list[str], rows: list[list[str]]) -> str:
    """Each cell with the header of its column, which stands before it on a narrow page."""
    head = "".join(f"<th scope='col'>{header}</th>" for header in headers)
    body = "".join(
        f"<tr><th scope='row'>{first}</th>"
        + "".join(f"<td data-label='{header}'>{cell}</td>" for header, cell in zip(headers[1:], rest, strict=True))
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<div class='{name} table-wrapper' tabindex='0' role='region' aria-label='{name}'>"
        f"<table class='docutils'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
