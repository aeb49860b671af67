"""A page's measurements as a JSON document, and a reader's own beside the published ones."""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funcdiff._tables import Record, Table, seconds
from funcdiff.measure import provenance
from funcdiff.measure.provenance import Environment

if TYPE_CHECKING:
    from funcdiff.measure.comparison import Comparison

VERSION = 1  # of the schema: raised whenever a reader of the old one would go wrong


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema that every document follows.

    >>> schema()["properties"]["version"]
    {'const': 1}
    """
    text = files("funcdiff.measure").joinpath("measurements.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def document(log: Iterable[Record], *, page: str, environment: Environment | None = None) -> dict[str, Any]:
    """Gather what a page measured into plain JSON values.

    Args:
        log: What `recording` collected.
        page: Name of the page.
        environment: Where it was measured; by default here and now.

    Returns:
        A document that follows `schema`.

    >>> document([], page="jacobians")["measurements"]
    []
    """
    where = environment or provenance.environment()
    measurements = [record.to_dict() for record in log]
    return {"version": VERSION, "page": page, "environment": where.to_dict(), "measurements": measurements}


def beside(comparison: "Comparison", published: str | Path | Mapping[str, Any]) -> Table:
    """Set one's own comparison beside the published one of the same candidates.

    Args:
        comparison: One's own.
        published: A document that `document` made, or the path of its JSON file.

    Returns:
        A table of both medians and both ratios to the fastest, own order. With several comparisons of these
        candidates in the document, the one on arguments of the same shapes is taken, else the first.

    Raises:
        ValueError: The document is of another version, or compares no two of these candidates.
    """
    content = json.loads(Path(published).read_text("utf-8")) if isinstance(published, str | Path) else published
    if content.get("version") != VERSION:
        raise ValueError(
            f"expected a document of version {VERSION}, got {content.get('version')!r}; "
            "take the JSON from the site of the funcdiff release that is installed"
        )
    theirs = _best_match(comparison, content)
    shared = [name for name in comparison if name in theirs["candidates"]]
    fastest = min(shared, key=lambda name: theirs["candidates"][name]["median"])
    own_fastest = min(shared, key=lambda name: comparison[name].median)
    unit = theirs["candidates"][fastest]["median"]

    def row(name: str) -> tuple[str, ...]:
        median = theirs["candidates"][name]["median"]
        own, ratio = comparison[name].median, comparison.ratio(name, own_fastest).median
        return name, seconds(median), seconds(own), f"{median / unit:.3g}", f"{ratio:.3g}"

    place = f"{content['environment']['processor']}, torch {content['environment']['torch']}"
    shapes = "" if tuple(theirs["arguments"]) == comparison.arguments else "; the arguments' shapes differ"
    return Table(
        ("candidate", "published", "here", "ratio, published", "ratio, here"),
        tuple(row(name) for name in sorted(shared, key=lambda name: comparison[name].median)),
        f"published: {place}, {theirs['threads']} thread(s); here: {comparison.table().caption}{shapes}",
    )


def _best_match(comparison: "Comparison", content: Mapping[str, Any]) -> Mapping[str, Any]:
    def likeness(other: Mapping[str, Any]) -> tuple[int, bool]:
        return len(other["candidates"].keys() & comparison.keys()), tuple(other["arguments"]) == comparison.arguments

    found = max(_comparisons(content), key=likeness, default=None)
    if found is None or likeness(found)[0] < 2:
        raise ValueError(
            f"expected a published comparison of two or more of {', '.join(comparison)}; "
            f"page {content['page']!r} has none"
        )
    return found


def _comparisons(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for measurement in content["measurements"]:
        if measurement["kind"] == "comparison":
            yield measurement
        elif measurement["kind"] == "sweep":
            yield from measurement["points"]
