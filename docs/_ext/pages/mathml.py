"""Write mathematics as MathML, which browsers draw themselves: no script, no font and no request."""

import re
from html import escape

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError

# The invisible sign that applies a function. Browsers set no space after it, so that "sin x" would read "sinx".
_APPLIED = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()")


def _mathml(tex, node, as_block=False):
    try:
        markup = _APPLIED.sub(r'\g<0><mspace width="0.17em"/>', tex2mathml(tex, as_block=as_block))
        return markup.replace("<math", f'<math alttext="{escape(tex, quote=True)}"', 1)
    except MathError as error:
        raise ExtensionError(f"{node.source}:{node.line}: cannot convert {tex!r} to MathML: {error}") from error


def _inline(translator, node):
    translator.body.append(_mathml(node.astext(), node))
    raise nodes.SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="math">{_mathml(node.astext(), node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
