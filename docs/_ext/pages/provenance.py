"""Say on each page where, when and with what its measurements were made, and link to all of them."""

import json
import os
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

from _ext.gallery.tutorials import GALLERY, record_of, sources
from _ext.pages.tables import table

_log = getLogger(__name__)


def _link(text, file, docname):
    """A link from a page to a file of the site that Sphinx does not know."""
    start = Path(docname).parent
    return nodes.reference(text, text, refuri=os.path.relpath(file, start), internal=True)


def _raw(record, docname, text="every measurement as JSON"):
    return _link(text, f"measurements/{record['page']}.json", docname)


class MeasuredOn(SphinxDirective):
    """The panel at the end of a tutorial."""

    required_arguments = 1

    def run(self):
        """Read the record of the tutorial's last run."""
        file = record_of(GALLERY / f"{self.arguments[0]}.py")
        if not file.exists():  # the tutorial failed, and the build will say so
            return []
        self.env.note_dependency(file)
        record = json.loads(file.read_text())
        place = record["environment"]
        rounds = sorted({c["n"] for m in record["measurements"] for c in m.get("candidates", {}).values() if "n" in c})
        timed = [p for m in record["measurements"] for p in m.get("points", [m])]
        threads = ", ".join(map(str, sorted({p.get("threads", place["threads"]) for p in timed}))) or place["threads"]
        facts = {
            "Processor": ", ".join(filter(None, [place["processor"], f"{place['cores']} cores", place["accelerator"]])),
            "Python": f"{place['python']}, {place['platform']}",
            "torch": f"{place['torch']} ({place['build']}), default dtype {place['dtype']}",
            "Run": f"{place['date']}" + (f", commit {place['commit'][:12]}" if place["commit"] else ""),
            "Threads": f"{threads} while measuring",
            "Samples": ", ".join(map(str, rounds)) + " a candidate" if rounds else "exact counts only",
        }
        panel = nodes.container(classes=["measured-on", "no-search"])
        panel += nodes.paragraph("", "", nodes.strong("", "Measured on"))
        fields = nodes.field_list()
        for name, value in facts.items():
            fields += nodes.field("", nodes.field_name("", name), nodes.field_body("", nodes.paragraph("", value)))
        panel += fields
        panel += nodes.paragraph("", "", _raw(record, self.env.docname))
        return [panel]


class Measurements(SphinxDirective):
    """The table of all measurements of the build."""

    def run(self):
        """List the records of all tutorials."""
        rows = []
        for source in sources():
            file = record_of(source)
            if not file.exists():
                continue
            self.env.note_dependency(file)
            record = json.loads(file.read_text())
            kinds = [measurement["kind"] for measurement in record["measurements"]]
            counts = [str(kinds.count(kind)) for kind in ("comparison", "sweep", "costs", "claim")]
            page = nodes.reference("", record["page"], refuri=f"../tutorials/{record['page']}.html", internal=True)
            rows.append([page, *counts, _raw(record, self.env.docname, "JSON")])
        return [table(["tutorial", "comparisons", "sweeps", "counts", "claims", "data"], rows)]


def _add_panel(app, docname, content):
    """Append the panel to each tutorial's reST."""
    del app
    _, _, page = docname.partition("tutorials/")
    if docname.startswith("tutorials/") and (GALLERY / f"{page}.py").exists():
        content[0] += f"\n\n.. measured-on:: {page}\n"


def _list_claims(app, exception):
    """Tell at the end of the build which expectations this run did not bear out; on time, that is no fault."""
    if exception or app.builder.name != "html":
        return
    records = [json.loads(record_of(source).read_text()) for source in sources()]
    claims = [(r["page"], m) for r in records for m in r["measurements"] if m["kind"] == "claim"]
    others = [f"  {page}: {claim['sentence']}" for page, claim in claims if not claim["holds"]]
    _log.info("%d of %d claims hold%s", len(claims) - len(others), len(claims), "; not these:" if others else ".")
    for line in others:
        _log.info(line)


def setup(app):
    """Register the directives, the panel of each tutorial and the summary of claims."""
    app.add_directive("measured-on", MeasuredOn)
    app.add_directive("measurements", Measurements)
    app.connect("source-read", _add_panel)
    app.connect("build-finished", _list_claims, priority=960)  # once every tutorial is known to have run
