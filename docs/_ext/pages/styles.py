"""Load a style or a script only on the pages that use it: every page pays for what it loads."""

# A file's name, and what the pages that use it have in their text; None: no page uses it.
_USED_BY = {"sphinx-design.min.css": 'class="sd-', "home.css": 'class="headline', "design-tabs.js": None}


def _leave_out(app, pagename, templatename, context, doctree):
    del app, pagename, templatename, doctree
    body = context.get("body", "")
    unused = tuple(name for name, mark in _USED_BY.items() if mark is None or mark not in body)
    for files in ("css_files", "script_files"):
        context[files] = [file for file in context[files] if not str(file.filename).endswith(unused)]


def setup(app):
    """Choose once every extension has added its files."""
    app.add_css_file("home.css")
    app.connect("html-page-context", _leave_out, priority=950)
    return {"parallel_read_safe": True}
