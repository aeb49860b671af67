"""The two tables of the derivative atlas: what to avoid, by culprit; what was found, by operation."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from _tools.atlas.data import Atlas, Entry, mode_names, outcomes, wrong


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
            _breaking(", ".join(entry["name"] for entry in seen)),
        ]
        rows.append([f"<code>{_breaking(operator)}</code>", *cells])
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
    return _breaking(next(iter(good), f"none of the {next(iter(names)).partition('_')[0]} recipes"))


def full_table(atlas: Atlas) -> str:
    """What each recipe does on each operation; chunked and batched only where they differ from the recipe alone."""
    texts: dict[str, int] = {}
    rows = [_row(entry, mode_names(atlas), texts) for entry in atlas["entries"]]
    notes = "".join(f"<li id='atlas-note-{i}'>{escape(text)}</li>" for text, i in texts.items())
    table = _table("derivative-atlas", ["operation", "wrong, by up to", "refuses or undecided", "right"], rows)
    return f"{table}<details open><summary>Texts of the refusals and reasons</summary><ol>{notes}</ol></details>"


def _row(entry: Entry, names: list[str], texts: dict[str, int]) -> list[str]:
    title = f"{_breaking(entry['name'])} <small>{entry['kind']}</small>"
    if not entry.get("modes"):
        return [title, "", f"not judged: {escape(entry['reason'])}", "none"]
    modes = entry["modes"]
    shown = [m for m in names if m == base(m) or modes[m]["outcome"] != modes[base(m)]["outcome"]]
    by = {outcome: [m for m in shown if modes[m]["outcome"] == outcome] for outcome in ("wrong", "right")}
    bad = _names({mode: f"{modes[mode]['error']:.2g}{_how_many(entry, mode)}" for mode in by["wrong"]})
    reasons: dict[tuple[str, str], list[str]] = {}
    for mode in shown:
        if modes[mode]["outcome"] in ("refuses", "undecided"):
            reasons.setdefault((modes[mode]["outcome"], modes[mode]["text"]), []).append(mode)
    unsure = "<br>".join(
        f"{_names(dict.fromkeys(group, ''), outcome)}: "
        f"<a href='#atlas-note-{texts.setdefault(text, len(texts))}'>{outcome}</a>"
        for (outcome, text), group in reasons.items()
    )
    rest = [mode for mode in by["right"] if mode == base(mode)]
    variants = _names({mode: "" for mode in by["right"] if mode != base(mode)}, "right")
    others = "all" if len(rest) == len(shown) else "the others" if rest else ""
    return [title, bad, unsure, ", ".join(filter(None, (others, variants))) or "none"]


def _how_many(entry: Entry, mode: str) -> str:
    """On how many samples, where not on all; and whether only where more than one tensor moves."""
    found = outcomes(entry, mode)
    if set(found) == {"wrong"}:
        return ""
    moving = dict(zip(entry["moving"], found, strict=True)) if 1 in entry["moving"] else {}
    alone = {outcome for moves, outcome in zip(entry["moving"], found, strict=True) if moves == 1}
    weights = ", right by the first tensor alone" if moving and alone == {"right"} else ""
    return f" on {found.count('wrong')} of {len(found)}{weights}"


def _names(modes: dict[str, str], outcome: str = "wrong") -> str:
    """Recipes, each marked with its outcome for the script that filters, and with what is to be said of it."""
    return ", ".join(
        f"<span class='atlas-{outcome}' data-recipe='{base(mode)}'>{_breaking(mode)}</span>"
        + (f" {note}" if note else "")
        for mode, note in modes.items()
    )


def _breaking(name: str) -> str:
    """A name that may break after an underscore."""
    return escape(name).replace("_", "_<wbr>")


def base(mode: str) -> str:
    """The recipe alone: "jacobian_reverse" of "jacobian_reverse, vmap"."""
    return mode.partition(",")[0]


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
