"""Link each word of the glossary where a page first uses it, and fail the build on jargon that nothing explains.

The links are made while a page is written, so no source, notebook or docstring holds them. Hovering over one shows the
definition. A word that the glossary lacks must be explained where a page first uses it, by `:dfn:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

_log = logging.getLogger(__name__)


def _after(words: str, word: str) -> str:
    """`word`, but only after one of `words`, where it is a noun and what the glossary means."""
    return f"(?:{'|'.join(f'(?<={before} )' for before in words.split())}){word}"


# How each word occurs in a sentence. Those that the glossary lacks stand here so that no page uses them unexplained.
WORDS = {
    "automatic recipe": r"automatic recipes?",
    "finite differences": r"(?:finite |central )differences",
    "double backward": r"double backward",
    "plain autograd": r"plain autograd",
    "forward mode": r"forward[ -]mode",
    "reverse mode": r"reverse[ -]mode",
    "Taylor mode": r"Taylor[ -]mode",
    "outer over inner": r"(?:forward|reverse) over (?:reverse|forward)|outer over inner",
    "meta device": r"meta device|device=.meta.",
    "Jacobian-vector product": r"Jacobian-vector products?",
    "vector-Jacobian product": r"vector-Jacobian products?",
    "Hessian-vector product": r"Hessian-vector products?",
    "vector-Hessian product": r"vector-Hessian products?",
    "Gauss-Newton": r"Gauss-Newton",
    "Fisher information": r"Fisher information",
    "tangent kernel": r"tangent kernels?",
    "Hutchinson's estimator": r"Hutchinson",
    "Hutch++": r"Hutch\+\+",
    "stochastic Lanczos quadrature": r"stochastic Lanczos(?: quadrature)?",
    "Lanczos' method": r"Lanczos",
    "straight-through estimator": r"straight-through",
    "nested tensor": r"nested[ -]tensors?",
    "autocast": r"autocast",
    **{name: f"{name}s?" for name in ("JVP", "VJP", "HVP", "VHP", "FLOP")},
    "IQR": r"IQR|interquartile range",
    **{name: f"{name}s?" for name in ("primal", "cotangent", "tangent", "pytree", "surrogate", "Laplacian", "kink")},
    **{name: f"{name}s?" for name in ("recipe", "operation", "transform", "ratio")},
    "batching rule": r"batching rules?",
    "caching allocator": r"caching allocators?",
    "dense tensor": r"dense tensors?",
    "functorch": r"functorch",
    "hook": r"hooks?",
    "logits": r"logits",
    "closure": r"closures?",
    "vmap": r"vmap",
    "atlas": r"atlas",
    "verification": r"verification",
    "plan": _after("a the each its one this", "plans?"),
    "pass": _after("a one two each single per every forward backward reverse", "pass(?:es)?"),
    "round": _after("a each per every over", "rounds?"),
    "written": r"numbers written|bytes written",
    "peak": _after("the a its lower higher", "peak"),
    "pullback": r"pullbacks?|pull-backs?",
    "pushforward": r"pushforwards?|push-forwards?",
    "dual number": r"dual (?:numbers?|tensors?)",
    # Not in the glossary:
    "dispatch mode": r"dispatch modes?",
    "Krylov": r"Krylov",
    "Fréchet": r"Fréchet",
}
_CODE = {"vmap"}  # a word that pages also write as code
_CASED = re.compile(r"[A-Z]{2}")  # an abbreviation is one in capitals only
_NAMES = {f"w{i}": name for i, name in enumerate(WORDS)}


def _pattern(name: str, pattern: str) -> str:
    return f"(?<![\\w-])(?{'' if _CASED.match(name) else 'i'}:{pattern})(?![\\w-])"


_ANY = re.compile("|".join(f"(?P<{key}>{_pattern(name, WORDS[name])})" for key, name in _NAMES.items()))
_ELSEWHERE = (  # where a link would be out of place, or there already
    *(nodes.title, nodes.rubric, nodes.caption, nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.raw),
    *(nodes.math, nodes.math_block, nodes.reference, nodes.comment, nodes.term, nodes.system_message),
    *(addnodes.pending_xref, addnodes.desc_signature, addnodes.download_reference, addnodes.toctree),
)


def _ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    while (node := node.parent) is not None:
        yield node


def _elsewhere(above: list[Any]) -> bool:
    return any(isinstance(node, _ELSEWHERE) for node in above)


class Linked(SphinxPostTransform):
    """The first use of each word becomes a link, before Sphinx resolves links."""

    default_priority = 4  # before Sphinx-Gallery (5) takes code blocks apart, so that their words are still code

    def run(self, **_: Any) -> None:
        """Go through the page in the order in which it is read."""
        self.known = {name for kind, name in self.env.domains.standard_domain.objects if kind == "term"}
        self.seen: set[str] = set()
        if self.env.metadata[self.env.docname].get("definitions"):  # the glossary itself
            return
        for text in list(self.document.findall(nodes.Text)):
            self.visit(text, list(_ancestors(text)))

    def visit(self, text: nodes.Text, above: list[Any]) -> None:
        """Link the words in a text, or note that the page links or explains them here by itself."""
        link = next((node for node in above if isinstance(node, addnodes.pending_xref)), None)
        if link is not None and link["reftype"] == "term":
            self.seen.update(name for name in WORDS if name.lower() == link["reftarget"].lower())
        elif any("dfn" in node.get("classes", ()) for node in above if isinstance(node, nodes.Element)):
            self.seen.update(_NAMES[str(match.lastgroup)] for match in _ANY.finditer(text))
        elif not _elsewhere(above):
            text.parent.replace(text, self.split(text))
        elif text in _CODE - self.seen and isinstance(above[0], nodes.literal) and not _elsewhere(above[1:]):
            above[1].replace(above[0], self.link(str(text), above[0].deepcopy()))

    def link(self, name: str, shown: nodes.Node) -> nodes.Node:
        """What is shown, as a link to the word's definition."""
        self.seen.add(name)
        link = addnodes.pending_xref(refdomain="std", reftype="term", reftarget=name, refdoc=self.env.docname)
        link["refexplicit"] = link["refwarn"] = True
        link += nodes.inline("", "", shown, classes=["xref", "std", "std-term"])
        return link

    def split(self, text: nodes.Text) -> list[nodes.Node]:
        """The text with its first uses as links."""
        parts: list[nodes.Node] = []
        done = 0
        for match in _ANY.finditer(text):
            name = _NAMES[str(match.lastgroup)]
            if name in self.seen:
                continue
            if name not in self.known:
                self.seen.add(name)
                message = "%r is explained nowhere: give it an entry in the glossary, or explain it here by :dfn:"
                _log.warning(message, match[0], location=text.parent)
                continue
            parts += [nodes.Text(text[done : match.start()]), self.link(name, nodes.Text(match[0]))]
            done = match.end()
        return [*parts, nodes.Text(text[done:])] if parts else [text]


class Hinted(SphinxPostTransform):
    """A link to the glossary shows the definition on hover."""

    default_priority = 20  # links are resolved

    def run(self, **_: Any) -> None:
        """Set the titles."""
        hints: dict[str, str] = {}
        for metadata in self.env.metadata.values():
            hints |= metadata.get("definitions", {})
        for link in self.document.findall(nodes.reference):
            anchor = link.get("refid") or link.get("refuri", "").partition("#")[2]
            if anchor in hints:
                link["reftitle"] = hints[anchor]


def _keep(app: Sphinx, document: nodes.document) -> None:
    """Keep each definition's first sentence with the page that it stands on."""
    definitions = {
        identifier: item[-1].astext().replace("\n", " ").partition(". ")[0].rstrip(".") + "."
        for item in document.findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for identifier in term["ids"]
        if identifier.startswith("term-")
    }
    if definitions:
        app.env.metadata[app.env.docname]["definitions"] = definitions


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the two steps."""
    app.add_post_transform(Linked)
    app.add_post_transform(Hinted)
    app.connect("doctree-read", _keep)
    return {"parallel_read_safe": True}
