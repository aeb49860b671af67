"""The grid of verdicts: an operation in each row, a recipe in each column, a colour and a symbol for each verdict.

The last columns of a group show the gravest verdict on any of its recipes in a batch, and on any differentiated once
more. Neighbouring cells with the same verdict and the same text are one cell, so that the page stays light.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import groupby

from _tools.atlas.data import Atlas, Entry, outcomes

SYMBOLS = {"right": "✓", "wrong": "✗", "refuses": "–", "undecided": "?", "untested": ""}
GROUPS = {
    "jacobians": "Jacobian",
    "hessians": "Hessian",
    "products": "Hessian-vector product",
    "diagonals": "Hessian diagonal",
    "laplacians": "Laplacian",
}
VARIANTS = {"vmap": "in a batch", "once more": "once more"}
GRAVEST = ("wrong", "refuses", "undecided", "right")
SECTIONS = {  # the gravest first
    "wrong": "Some recipe is wrong",
    "refuses": "Some recipe refuses",
    "undecided": "Some verdict is undecided",
    "right": "Every recipe is right",
}
Groups = dict[str, dict[str, list[str]]]  # by group and column: the modes that it shows
AUTOMATIC = ("jacobian", "hessian", "hvp")
GREATEST = 1e300  # the error of a derivative that is not finite where it should be, as kept
NAMED = ("vhp", "batch_jacobian")  # these have no prefix of their group


def base(mode: str) -> str:
    """The recipe alone: "jacobian_reverse" of "jacobian_reverse, vmap"."""
    return mode.partition(",")[0]


def by_kind(entry: Entry) -> str:
    """The section of a row: what kind of function it is."""
    return str(entry["kind"])


def by_verdict(entry: Entry) -> str:
    """The section of a row: the gravest verdict on it."""
    found = {verdict["outcome"] for verdict in entry.get("modes", {}).values()}
    return next((section for outcome, section in SECTIONS.items() if outcome in found), "Not judged")


def grid(atlas: Atlas, section: Callable[[Entry], str] = by_kind) -> str:
    """The table, a line for what is said of a cell, and the texts of all cells."""
    groups = _columns(atlas)
    variants: dict[str, list[str]] = {}
    for mode in (mode for modes in atlas["modes"].values() for mode in modes if mode != base(mode)):
        variants.setdefault(base(mode), []).append(mode)
    sections: dict[str, list[str]] = {}
    if section is by_verdict:
        sections |= {title: [] for title in SECTIONS.values()}  # in this order
    notes = []
    for i, entry in enumerate(atlas["entries"]):
        row, note = _row(entry, groups, variants, f"atlas-row-{i}")
        sections.setdefault(section(entry), []).append(row)
        notes.append(note)
    bodies = [_body(title, rows, sum(map(len, groups.values()))) for title, rows in sections.items() if rows]
    region = "tabindex='0' role='region' aria-label='Verdicts by operation and recipe'"
    return (
        f"{_legend(bool(variants))}<div class='atlas'><div class='atlas-grid table-wrapper' {region}>"
        f"<table>{_head(groups)}{_totals(atlas, groups)}{''.join(bodies)}</table></div>"
        "<p class='atlas-told' role='status' hidden></p></div>"
        "<details class='atlas-notes' open><summary>All messages and errors</summary>"
        f"<ul>{''.join(notes)}</ul></details>"
    )


def _columns(atlas: Atlas) -> Groups:
    """The columns of each group: its recipes one by one, then all of them in a batch, then differentiated once more."""
    every = [mode for modes in atlas["modes"].values() for mode in modes]
    groups: Groups = {}
    for key, modes in atlas["modes"].items():
        recipes = [mode for mode in modes if mode == base(mode)]
        columns = {mode: [mode] for mode in recipes}
        for variant, title in VARIANTS.items():
            if varied := [mode for mode in every if base(mode) in recipes and mode == f"{base(mode)}, {variant}"]:
                columns[f"{GROUPS.get(key, key)} {title}"] = varied
        if columns:
            groups[key] = columns
    return groups


def _legend(varies: bool) -> str:
    marks = "".join(
        f"<span><span class='atlas-{name}'>{symbol}</span> {name}</span>" for name, symbol in SYMBOLS.items() if symbol
    )
    more = (
        "<span><span class='atlas-right atlas-varies'>✓</span> other verdict in chunks, in a batch or once more</span>"
    )
    return f"<p class='atlas-legend'>{marks}{more if varies else ''}</p>"


def _head(groups: Groups) -> str:
    widths, above, below = [], [], []
    for key, columns in groups.items():
        title = escape(GROUPS.get(key, key))
        widths.append(f"<colgroup><col class='first'>{'<col>' * (len(columns) - 1)}</colgroup>")
        if len(columns) == 1:
            (name,) = columns
            above.append(f"<th scope='col' rowspan='2' data-recipe='{name}' class='first'><span>{title}</span></th>")
            continue
        above.append(f"<th scope='colgroup' colspan='{len(columns)}' class='first'>{title}</th>")
        for i, (name, modes) in enumerate(columns.items()):
            first = "" if i else " class='first'"
            words = _named(modes[0].partition(", ")[2]) or short(name)
            below.append(f"<th scope='col' data-recipe='{escape(name)}'{first}><span>{words}</span></th>")
    head = f"<tr><td rowspan='2'></td>{''.join(above)}</tr><tr>{''.join(below)}</tr>"
    return f"<colgroup><col class='name'></colgroup>{''.join(widths)}<thead>{head}</thead>"


def short(mode: str) -> str:
    """The name of a column, below that of its group."""
    if mode in AUTOMATIC:
        return "automatic"
    words = mode if mode in NAMED else mode.partition("_")[2]
    return escape(words.replace("_", " ").replace("taylor", "Taylor"))


def _totals(atlas: Atlas, groups: Groups) -> str:
    """On how many operations each recipe is wrong, and refuses."""
    judged, rows = [entry for entry in atlas["entries"] if "modes" in entry], []
    for outcome in ("wrong", "refuses"):
        counts = [
            sum(_gravest(entry, modes) == outcome for entry in judged)
            for columns in groups.values()
            for modes in columns.values()
        ]
        cells = "".join(f"<td>{count or ''}</td>" for count in counts)
        rows.append(f"<tr><th scope='row'>{outcome}, of {len(judged)}</th>{cells}</tr>")
    return f"<tbody class='atlas-totals'>{''.join(rows)}</tbody>"


def _body(title: str, rows: list[str], columns: int) -> str:
    words = f"<span>{escape(title)}: {len(rows)}</span>"
    head = f"<tr class='atlas-kind'><th scope='rowgroup' colspan='{1 + columns}'>{words}</th></tr>"
    return f"<tbody>{head}{''.join(rows)}</tbody>"


def _row(entry: Entry, groups: Groups, variants: dict[str, list[str]], place: str) -> tuple[str, str]:
    """The row, and what is said of its cells; nothing where every recipe is right."""
    name = breaking(entry["name"])
    if not entry.get("modes"):
        span = sum(map(len, groups.values()))
        none = f"<td class='atlas-none' colspan='{span}'>not judged: {escape(entry['reason'])}</td>"
        return f"<tr><th scope='row'>{name}</th>{none}</tr>", ""
    texts: dict[str, list[str]] = {}
    cells = "".join(cell for columns in groups.values() for cell in _cells(entry, columns, variants, texts))
    if not texts:
        return f"<tr><th scope='row'>{name}</th>{cells}</tr>", ""
    told = " ".join(f"<span>{', '.join(modes)}: {escape(text)}</span>" for text, modes in texts.items())
    row = f"<tr><th scope='row'><a href='#{place}'>{name}</a></th>{cells}</tr>"
    return row, f"<li id='{place}'><strong>{escape(entry['name'])}</strong> {told}</li>"


def _cells(
    entry: Entry, columns: dict[str, list[str]], variants: dict[str, list[str]], texts: dict[str, list[str]]
) -> Iterator[str]:
    def told(column: str) -> tuple[str, str, str]:
        modes = columns[column]
        if modes == [column]:
            return _outcome(entry, column), note(entry, column, variants.get(column, [])), ""
        return _gravest(entry, modes), together(entry, modes), column

    for i, ((outcome, text, whole), run) in enumerate(groupby(columns, key=told)):
        same = list(run)
        marks = [] if whole else _varying(entry, same, variants)
        kind = [f"atlas-{outcome}", *marks, *([] if i else ["first"])]
        span = f" colspan='{len(same)}'" if len(same) > 1 else ""
        if text:
            texts.setdefault(text, []).extend(same)
            span += f" data-note='{list(texts).index(text)}'"
        yield f"<td class='{' '.join(kind)}'{span}>{' '.join([SYMBOLS[outcome]] * len(same)).strip()}</td>"


def _varying(entry: Entry, modes: list[str], variants: dict[str, list[str]]) -> list[str]:
    """The classes of a cell of which a variant has another verdict."""
    found = {_outcome(entry, variant) for mode in modes for variant in variants.get(mode, [])} - {"untested"}
    other = found - {_outcome(entry, mode) for mode in modes}
    return ["atlas-varies", *(["atlas-varies-wrong"] if "wrong" in other else [])] if other else []


def _outcome(entry: Entry, mode: str) -> str:
    return str(entry["modes"].get(mode, {"outcome": "untested"})["outcome"])


def _gravest(entry: Entry, modes: Sequence[str]) -> str:
    found = {_outcome(entry, mode) for mode in modes}
    return next((outcome for outcome in GRAVEST if outcome in found), "untested")


def together(entry: Entry, modes: Sequence[str]) -> str:
    """What is said of recipes that share a column: of each that is not right."""
    told: dict[str, list[str]] = {}
    for mode in modes:
        if text := _verdict(entry, mode):
            told.setdefault(text, []).append(base(mode))
    return ". ".join(f"{', '.join(names)} {text}" for text, names in told.items())


def note(entry: Entry, mode: str, variants: Sequence[str] = ()) -> str:
    """What is said of a recipe on an operation, and of its variants where they differ; nothing where all is right."""
    parts = [_verdict(entry, mode)]
    parts += [
        f"{_named(variant.partition(', ')[2])}: {_verdict(entry, variant) or 'right'}"
        for variant in variants
        if _outcome(entry, variant) not in ("untested", _outcome(entry, mode))
    ]
    return ". ".join(filter(None, parts))


def _named(variant: str) -> str:
    return VARIANTS.get(variant, variant)


def _verdict(entry: Entry, mode: str) -> str:
    found = entry["modes"].get(mode, {"outcome": "untested"})
    if found["outcome"] == "wrong":
        how = f"by up to {found['error']:.2g}" if found["error"] < GREATEST else "and not finite"
        return f"wrong {how}{_how_many(entry, mode)}"
    return f"{found['outcome']}: {_reason(found['text'])}" if found["outcome"] in ("refuses", "undecided") else ""


def _reason(text: str) -> str:
    """An error without the package's remedy, which is for a function of the reader's, and newer than the atlas."""
    text = re.sub(r"^(\w+): .* torch said: ", r"\1: ", text)
    return re.sub(r"(no recipe is known to be right on func \(.*?\))\. func calls .*", r"\1", text)


def _how_many(entry: Entry, mode: str) -> str:
    """On how many samples, where not on all; and whether only where more than one tensor moves."""
    found = outcomes(entry, mode)
    if set(found) == {"wrong"}:
        return ""
    moving = dict(zip(entry["moving"], found, strict=True)) if 1 in entry["moving"] else {}
    alone = {outcome for moves, outcome in zip(entry["moving"], found, strict=True) if moves == 1}
    weights = "; right with respect to the first tensor alone" if moving and alone == {"right"} else ""
    return f" on {found.count('wrong')} of {len(found)} samples{weights}"


def breaking(name: str) -> str:
    """A name that may break after an underscore or a dot."""
    return escape(name).replace("_", "_<wbr>").replace(".", ".<wbr>")
