"""Keep the pages of run times within the site: Sphinx-Gallery has them load scripts and styles from elsewhere."""

import re

_FETCHED = re.compile(r"  \.\. raw:: html\n\n    <style scoped>\n.*?</script>\n\n(?=  \.\. list-table)", re.DOTALL)


def _drop_scripts(app, docname, content):
    del app
    if docname.endswith("sg_execution_times"):
        content[0] = _FETCHED.sub("", content[0])


def setup(app):
    """Rewrite these pages as they are read; their tables are sorted as they are."""
    app.connect("source-read", _drop_scripts)
    return {"parallel_read_safe": True}
