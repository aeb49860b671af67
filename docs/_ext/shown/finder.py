"""The `recipe-finder` directive: a form that answers while you type and, without a script, a table of examples."""

import ast
import json
import zlib
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from _ext.gallery.tutorials import GALLERY
from _ext.pages.tables import table
from _tools.finder import answers, model, script
from _tools.finder.model import NEEDS, NORMS, Question
from funcdiff._automatic import costs
from funcdiff._tables import amount_of_bytes, amount_of_flops, significant

SCRIPTS = [Path(__file__).parents[2] / "_static" / name for name in ("finder_model.js", "finder.js")]
INTRODUCTION = (
    "Describe your network. The finder estimates the cost of each recipe and shows the code for the cheapest one. "
    ":func:`~funcdiff.jacobian` and :func:`~funcdiff.hessian` choose by the same estimates."
)
# The tutorial that explains the answer: for a batch of rows, at one point, with a norm that is differentiated wrongly.
TUTORIALS = {
    "Jacobian": ("batches/per_row", "jacobians/jacrev_against_jacfwd", "hessians/when_they_disagree"),
    "Hessian": ("networks/cost", "hessians/four_hessians", "hessians/when_they_disagree"),
    "Hessian-vector product": ("products/hvp_four_ways",) * 3,
    "Hessian diagonal": ("uses/physics_informed", "uses/physics_informed", "hessians/when_they_disagree"),
    "Laplacian": ("uses/physics_informed", "uses/physics_informed", "hessians/when_they_disagree"),
}
SPARSE = "sparse/passes"
PREPARED = "measuring/prepared"
TYPICAL = [
    Question("Jacobian", 5, 25, 100, 1000),
    Question("Jacobian", 1000, 10, 0, 500),
    Question("Jacobian", 1000, 1, 0, 500),
    Question("Hessian", 5, 25, 100, 1000),
    Question("Hessian", 50, 1, 0, 200),
    Question("Hessian", 5, 25, 100, 1000, norm="layer norm"),
    Question("Hessian-vector product", 1000, 1, 0, 500),
    Question("Hessian diagonal", 10, 1, 1000, 100),
    Question("Laplacian", 3, 1, 1000, 100),
]

_FORM = """
<form aria-label="Recipe finder" autocomplete="off">
<label>You need <select name="need">{needs}</select></label>
<label>Inputs n <input type="number" name="inputs" value="5" min="1" max="1000000" required></label>
<label>Outputs m <input type="number" name="outputs" value="25" min="1" max="1000000" required></label>
<label class="finder-check"><input type="checkbox" name="byRow" checked> one for each row</label>
<label>Rows B <input type="number" name="rows" value="100" min="1" max="1000000" required></label>
<label>Hidden width <input type="number" name="width" value="1000" min="1" max="1000000" required></label>
<label>Hidden layers <input type="number" name="layers" value="2" min="1" max="100" required></label>
<label>Normalization <select name="norm">{norms}</select></label>
</form>
<p class="finder-answer" role="status" aria-live="polite"></p>
<div class="highlight-python notranslate">
<div class="highlight"><pre class="finder-code" tabindex="0"></pre></div></div>
<div class="finder-rest">
<div class="finder-costs table-wrapper" tabindex="0" role="region" aria-label="Every candidate">
<table><thead><tr>{columns}</tr></thead><tbody class="finder-rows"></tbody></table></div>
<p class="finder-wrong"></p>
<p class="finder-about">Read more: <a class="finder-tutorial" href="{page}">{title}</a> The times are predictions for a
typical processor core, the same that <code>explain</code> shows. On an idle machine, measured times mostly lie within a
factor of two of them. On a busy machine they can be several times as long. The ratio is the predicted time of a recipe
divided by that of the first one. The memory is estimated for float32, within about a factor of two, and includes the
result.</p>
<p class="finder-about">If each output of your function depends on only a few inputs, use {sparse} instead, the second
one for a function that returns one number:
<a href="{passes}">{question}</a></p>
<p class="finder-about">If the network is small and you call the derivative many times, {prepare} makes each call
faster. <a href="{prepared}">How much faster, and how the prepared code reads</a></p>
</div>
"""


def title_of(tutorial):
    """The question that a tutorial asks."""
    docstring = ast.get_docstring(ast.parse((GALLERY / f"{tutorial}.py").read_text(encoding="utf-8")))
    return docstring.split("\n")[0]


def form(up):
    """The finder as HTML, for a page from which `up` leads to the root."""

    def options(names):
        return "".join(f"<option{' selected' * (name == 'Hessian')}>{escape(name)}</option>" for name in names)

    # One output has a gradient: the finder says so.
    needs = options(NEEDS).replace("<option>Jacobian<", '<option value="Jacobian">Jacobian or gradient<')

    columns = "recipe", "FLOPs", "memory", "time", "ratio"
    tutorials = {
        need: {
            case: (f"{up}tutorials/{tutorial}.html", title_of(tutorial))
            for case, tutorial in zip(("rows", "point", "norm"), pages, strict=True)
        }
        for need, pages in TUTORIALS.items()
    }
    page, title = tutorials["Hessian"]["rows"]
    content = _FORM.format(
        needs=needs,
        norms=options(NORMS),
        columns="".join(f'<th scope="col">{column}</th>' for column in columns),
        page=page,
        title=escape(title),
        sparse=" or ".join(f"<code>{name}</code>" for name in answers.SPARSE.values()),
        passes=f"{up}tutorials/{SPARSE}.html",
        question=escape(title_of(SPARSE)),
        prepare=f"<code>{answers.PREPARED}</code>",
        prepared=f"{up}tutorials/{PREPARED}.html",
    )
    data = json.dumps({**model.facts(), **answers.facts(), "tutorials": tutorials}).replace("<", "\\u003c")
    return (
        f'<div class="finder" id="finder" hidden>{content}</div>'
        f'<script type="application/json" id="finder-model">{data}</script>'
        f"<script>{script.script()}</script>"
        # Here and not deferred: the form appears, with its answer, before what is below it is laid out.
        + "".join(
            f'<script src="{up}_static/{file.name}?v={zlib.crc32(file.read_bytes()):08x}"></script>' for file in SCRIPTS
        )
    )


def tutorial_of(q):
    """The tutorial that explains the answer."""
    rows, point, norm = TUTORIALS[q.need]
    return norm if answers.wrong(q.norm, q.need, q.outputs > 1)["together"] else rows if q.rows else point


def typical(up):
    """The same answers for typical shapes, as a table."""
    body = []
    for q in TYPICAL:
        found = answers.answer(q)
        best, second, *_ = found.candidates
        network = " → ".join(map(str, [q.inputs, *[q.width] * q.layers, q.outputs]))
        if q.norm != "none":
            network += f", {q.norm}"
        need = nodes.reference("", found.need, refuri=f"{up}tutorials/{tutorial_of(q)}.html", internal=True)
        call, chosen = nodes.literal("", found.take), nodes.literal("", found.recipe)
        slower = f"{second.recipe}: {significant(second.seconds / best.seconds)}×"
        costs = amount_of_flops(best.flops), amount_of_bytes(best.peak), slower
        body.append([need, network, str(q.rows or "one point"), call, chosen, *costs])
    header = ["you need", "network", "rows", "call", "it chooses", "FLOPs", "memory", "the next best takes"]
    return table(header, body)


class RecipeFinder(SphinxDirective):
    """`.. recipe-finder::`."""

    def run(self):
        """The form, and the table that stands in for it."""
        for file in (costs.__file__, model.__file__, answers.__file__, script.__file__, *SCRIPTS):
            self.env.note_dependency(str(file))
        self.env.metadata[self.env.docname]["recipe-finder"] = True
        up = "../" * self.env.docname.count("/")
        return [
            *self.parse_text_to_nodes(INTRODUCTION),
            nodes.raw("", form(up), format="html"),
            nodes.raw("", "<noscript>", format="html"),
            typical(up),
            nodes.raw("", "</noscript>", format="html"),
        ]


def _load_style(app, page, template, context, doctree):
    del template, context, doctree
    if app.env.metadata.get(page, {}).get("recipe-finder"):
        app.add_css_file("finder.css")


def setup(app):
    """Register the directive, and its style on its page alone."""
    app.add_directive("recipe-finder", RecipeFinder)
    app.connect("html-page-context", _load_style)
    return {"parallel_read_safe": True}
