"""Snippets that run while their page is read, shown with what they did: a page that torch contradicts does not build.

`.. runs::` shows what the snippet printed, `.. raises::` the error that the section's title quotes (`...` stands for
what varies), `.. misleads::` two values that the snippet calls `wrong` and `right` and that must differ. `.. ran-on::`
says on which torch.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import linecache
import textwrap
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger
from torch.utils._pytree import tree_leaves

from _ext.gallery.tutorials import fingerprint
from _ext.pages.computed import Computed
from funcdiff import clear_plans

_log = getLogger(__name__)
_numbers = itertools.count()
WIDTH = 90  # characters of code in the column of a page 1280 pixels wide


class Outcome(NamedTuple):
    """What a snippet printed, the error that ended it, if one did, and the names it left."""

    printed: str
    error: BaseException | None
    names: dict[str, Any]

    @property
    def text(self) -> str:
        """The error as Python prints it last."""
        return f"{type(self.error).__name__}: {self.error}" if self.error is not None else "no error"


def run(source: str) -> Outcome:
    """Run a snippet as a program of its own, from seed 0, warnings being errors."""
    clear_plans()  # else a snippet would be told of checks that another one, with an equal network, went through
    file = f"<snippet {next(_numbers)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # torch.compile reads sources
    names: dict[str, Any] = {"__name__": "__main__"}
    printed, error = io.StringIO(), None
    before = state()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("error")
        # torch 2.13's forward mode compiles a decomposition with torch.jit.script on first use.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        always = torch.is_warn_always_enabled()
        torch.set_warn_always(True)  # else a warning that another snippet provoked stays silent here
        torch.manual_seed(0)
        try:
            exec(compile(source, file, "exec", dont_inherit=True), names)
        except Exception as raised:
            error = raised
        finally:
            torch.set_warn_always(always)
    if state() != before and error is None:
        error = RuntimeError(f"the snippet leaves torch as it should not: {before} became {state()}")
    return Outcome(printed.getvalue(), error, names)


def state() -> dict[str, Any]:
    """What a snippet must leave as it found it."""
    kernels = torch.backends.cuda
    return {
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "attention": (kernels.flash_sdp_enabled(), kernels.mem_efficient_sdp_enabled(), kernels.math_sdp_enabled()),
    }


def quotes(title: str, text: str) -> bool:
    """Whether `text` holds the parts of `title`, in order; `...` stands for anything between."""
    place = 0
    for part in title.split("..."):
        found = " ".join(text.split()).find(part.strip(), place)
        if found < 0:
            return False
        place = found + len(part.strip())
    return True


def differ(wrong: Any, right: Any) -> bool:
    """Whether two values are not the same but for rounding: other numbers, shapes, or NaN on one side."""
    pairs = list(itertools.zip_longest(tree_leaves(wrong), tree_leaves(right)))
    return not all(
        a is not None
        and b is not None
        and torch.as_tensor(a).shape == torch.as_tensor(b).shape
        and torch.allclose(torch.as_tensor(a).double(), torch.as_tensor(b).double(), rtol=1e-4, equal_nan=True)
        for a, b in pairs
    )


def folded(printed: str) -> str:
    """What was printed, its sentences folded to the width of the column; a table's lines stay whole.

    A line of a table has a gap inside, or begins with one where only its last column goes on.
    """
    lines = printed.split("\n")
    return "\n".join(x if "  " in x.rstrip() else textwrap.fill(x, WIDTH, break_on_hyphens=False) for x in lines)


def fault_of_run(outcome: Outcome, title: str) -> str:
    """A snippet that must pass."""
    return f"the snippet fails: {outcome.text}" if outcome.error is not None else ""


def fault_of_error(outcome: Outcome, title: str) -> str:
    """A snippet that must raise what the title quotes."""
    raised = outcome.error is not None and quotes(title, outcome.text)
    return "" if raised else f"expected {title!r}, got {outcome.text}"


def fault_of_wrong(outcome: Outcome, title: str) -> str:
    """A snippet that must show a wrong value beside the right one."""
    if outcome.error is not None:
        return fault_of_run(outcome, title)
    if not {"wrong", "right"} <= outcome.names.keys():
        return "the snippet must leave `wrong` and `right`"
    return "" if differ(outcome.names["wrong"], outcome.names["right"]) else "what was wrong is right now"


class Executed(Computed):
    """A snippet and what it did."""

    has_content = True
    fault: Callable[[Outcome, str], str]

    def compute(self) -> list[nodes.Node]:
        """Run the snippet; report what the page does not say."""
        source = "\n".join(self.content) + "\n"
        outcome = run(source)
        parent = self.state.parent
        title = parent[0].astext() if isinstance(parent, nodes.section) else ""
        if fault := type(self).fault(outcome, title):
            text = "this page is out of date on torch %s: %s"
            _log.warning(text, torch.__version__, fault, location=self.get_location())
        shown = (folded(outcome.printed) if outcome.error is None else f"{outcome.printed}{outcome.text}").rstrip()
        made: list[nodes.Node] = [nodes.literal_block(source, source, language="python")]
        classes = ["printed"] if outcome.error is None else ["printed", "error-text"]
        if shown:
            made.append(nodes.literal_block(shown, shown, language="none", classes=classes))
        return made


class Runs(Executed):
    """A snippet that passes."""

    fault = fault_of_run


class Raises(Executed):
    """A snippet that raises what its section is called after."""

    fault = fault_of_error


class Misleads(Executed):
    """A snippet whose wrong value differs from the right one."""

    fault = fault_of_wrong


class RanOn(SphinxDirective):
    """The torch of this build."""

    def run(self) -> list[nodes.Node]:
        """Name it."""
        text = (
            f"Each block of code is a complete program. Its output is that of torch {torch.__version__} after "
            "torch.manual_seed(0)."
        )
        return [nodes.paragraph("", text, classes=["ran-on"])]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives; another torch, package or extension reads every page anew."""
    app.add_config_value("executed_with", fingerprint(), "env", types=[str])
    for name, directive in {"runs": Runs, "raises": Raises, "misleads": Misleads, "ran-on": RanOn}.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True}
