"""Say where a page can be edited: at its source in the public repository, if one is configured."""

from _ext.gallery.tutorials import GALLERY


def address(repository, pagename):
    """The address for editing a page; none without a repository, or for a page that the build generates."""
    if not repository:
        return None
    tutorial = pagename.removeprefix("tutorials/")
    if pagename.startswith("tutorials/"):
        source = f"gallery/{tutorial}.py" if (GALLERY / f"{tutorial}.py").exists() else None
    else:
        source = None if "generated/" in pagename else f"docs/{pagename}.rst"
    return source and f"https://github.com/{repository}/edit/main/{source}"


def _add(app, pagename, templatename, context, doctree):
    del templatename
    context["edit_address"] = address(app.config.public_repository, pagename) if doctree is not None else None


def setup(app):
    """Hand the address to the template of the link."""
    app.connect("html-page-context", _add)
    return {"parallel_read_safe": True}
