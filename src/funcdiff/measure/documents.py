"""A page's measurements as a JSON document: making one, and finding a comparison in one."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from funcdiff._tables import Record
from funcdiff.measure import provenance
from funcdiff.measure.provenance import Environment

VERSION = 1  # of the schema: raised whenever a reader of the old one would go wrong


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of the documents that `document` makes.

    Example:
        >>> from funcdiff.measure import schema
        >>> schema()["properties"]["version"]
        {'const': 1}
    """
    text = files("funcdiff.measure").joinpath("measurements.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def document(log: Iterable[Record], *, page: str, environment: Environment | None = None) -> dict[str, Any]:
    """Make a document, a dictionary that can be saved as JSON, of what was measured.

    Example:
        >>> from funcdiff.measure import document
        >>> document([], page="jacobians")["measurements"]
        []

    Args:
        log: The list from `recording`.
        page: The name of the page or program that measured.
        environment: Where it was measured. By default, the machine and the software in use.

    Returns:
        A document that follows `schema`.
    """
    where = environment or provenance.environment()
    measurements = [record.to_dict() for record in log]
    return {"version": VERSION, "page": page, "environment": where.to_dict(), "measurements": measurements}


def load(published: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content of a document, which is given itself or as the path of its JSON file.

    Raises:
        ValueError: It is of another version.
    """
    content = json.loads(Path(published).read_text("utf-8")) if isinstance(published, str | Path) else published
    if content.get("version") != VERSION:
        raise ValueError(
            f"expected a document of version {VERSION}, got {content.get('version')!r}. "
            "Use the JSON from the site of the funcdiff release that is installed"
        )
    return content


def best_match(content: Mapping[str, Any], names: Collection[str], arguments: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the document's comparison that has most of these candidates; of several, the one on these arguments.

    Raises:
        ValueError: None has two of these candidates.
    """

    def likeness(comparison: Mapping[str, Any]) -> tuple[int, bool]:
        return len(comparison["candidates"].keys() & names), tuple(comparison["arguments"]) == arguments

    found = max(_comparisons(content), key=likeness, default=None)
    if found is None or likeness(found)[0] < 2:
        raise ValueError(
            f"expected a published comparison of two or more of {', '.join(names)}; page {content['page']!r} has none"
        )
    return found


def _comparisons(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for measurement in content["measurements"]:
        if measurement["kind"] == "comparison":
            yield measurement
        elif measurement["kind"] == "sweep":
            yield from measurement["points"]
