"""Configuration of the site; see https://www.sphinx-doc.org/en/master/usage/configuration.html."""

import logging
import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent))

from _ext.gallery import notebooks
from _ext.pages import inventories

# A style of the theme sets the root logger to INFO when it is imported, unless it is set already. Messages of
# libraries and of our recipes would then stand among those of the build.
logging.basicConfig(level=logging.WARNING)

project = "funcdiff"
author = "The funcdiff developers"
copyright = "2026, the funcdiff developers"
version = release = installed_version("funcdiff")

# Where the site will be served from. Without an address there is no canonical link and no sitemap, and other links are
# relative. A variable that is set and empty is what GitHub gives a pull request.
address = os.environ.get("SITE_URL")
html_baseurl = address.rstrip("/") + "/" if address else ""

# A GitHub repository, "owner/name", from which everyone can install the package. Given one, notebooks install it from
# there, each page links to its source for editing, and each tutorial offers "Open in Colab", which opens the notebooks
# that CI lays into the branch `notebooks`.
public_repository = ""

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
    *(["sphinx_sitemap"] if html_baseurl else []),
    "sphinxext.opengraph",
    "notfound.extension",
    "myst_parser",  # for the changelog
    "_ext.gallery.cards",
    "_ext.gallery.descriptions",
    "_ext.gallery.downloads",
    "_ext.gallery.notebooks",
    "_ext.gallery.sidebar",
    "_ext.gallery.times",
    "_ext.gallery.tutorials",
    "_ext.pages.api",
    "_ext.pages.codelink",
    "_ext.pages.computed",
    "_ext.pages.diagrams",
    "_ext.pages.edit",
    "_ext.pages.entries",
    "_ext.pages.executed",
    "_ext.pages.images",
    "_ext.pages.links",
    "_ext.pages.llms",
    "_ext.pages.markdown",
    "_ext.pages.mathml",
    "_ext.pages.provenance",
    "_ext.pages.requirements",
    "_ext.pages.styles",
    "_ext.pages.terms",
    "_ext.pages.unbroken",
    "_ext.shown.accuracy",
    "_ext.shown.atlas",
    "_ext.shown.bad_input",
    "_ext.shown.bench",
    "_ext.shown.changes",
    "_ext.shown.finder",
    "_ext.shown.gpu",
    "_ext.shown.headline",
    "_ext.shown.house",
    "_ext.shown.scaling",
    "_ext.shown.studies",
    "_ext.shown.what_works",
    "_ext.shown.which_recipe",
]
exclude_patterns = ["_build", "_ext", "_tools", "_inventories", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
nitpicky = True
default_role = "code-link"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings give types and shapes together
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Method", "Cost", "Source"]
intersphinx_mapping = inventories.write(Path(__file__).parent / "_inventories")
intersphinx_timeout = 30  # for linkcheck; the inventories themselves are local
extlinks = {"repository": (f"https://github.com/{public_repository}/%s", "%s")}
if public_repository:
    tags.add("public")  # noqa: F821 -- Sphinx defines it

sphinx_gallery_conf = {
    "examples_dirs": "../gallery",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"\.py$",
    "nested_sections": True,
    "subsection_order": "_ext.gallery.order.folders",
    "within_subsection_order": "_ext.gallery.order.tutorials",
    "image_scrapers": ("_ext.gallery.figures.scrape",),
    "reset_modules": ("matplotlib", "_ext.gallery.tutorials.reset"),
    "reset_modules_order": "both",
    "backreferences_dir": "reference/generated/backreferences",
    "doc_module": ("funcdiff",),
    "ignore_repr_types": r"matplotlib\.",  # a figure shows itself
    "inspect_global_variables": False,  # else each variable links to its type
    "prefer_full_module": {r"funcdiff\.measure"},
    "first_notebook_cell": notebooks.install_cell(public_repository),
    "recommender": {  # by the words of tutorials, of which there are too few to leave any word out
        "enable": True,
        "n_examples": 2,
        "min_df": 1,
        "max_df": 10**6,
        "rubric_header": "Related tutorials",
    },
    "thumbnail_size": (640, 400),
    "min_reported_time": 0,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
}

html_theme = "furo"
html_title = "funcdiff"
# Names in signatures are in the brand's colour: the theme has them in the red of errors.
signatures = {"color-api-name": "var(--color-brand-content)", "color-api-pre-name": "var(--color-brand-content)"}
html_theme_options = {
    # Plum is the colour of the automatic recipes on every figure; here it is dark, or light, enough for text.
    "light_css_variables": {
        "color-brand-primary": "#8a3a7c",
        "color-brand-content": "#8a3a7c",
        "color-brand-visited": "#63406f",
        **signatures,
    },
    "dark_css_variables": {
        "color-brand-primary": "#d894cb",
        "color-brand-content": "#e0a3d4",
        "color-brand-visited": "#c3a2d0",
        **signatures,
    },
}
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["look.css", "funcdiff.css"]
html_js_files = [("funcdiff.js", {"defer": "defer"})]
html_search_scorer = str(Path(__file__).parent / "_static" / "scorer.js")  # Sphinx takes it from the working folder
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = "%Y-%m-%d"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

sitemap_url_scheme = "{link}"
sitemap_show_lastmod = False  # it would ask git, which a downloaded archive does not have
notfound_urls_prefix = urlsplit(html_baseurl).path or "/"
notfound_context = {
    "title": "Page not found",
    "body": f"""<h1>Page not found</h1>
<p>There is no page at this address. Go to the <a href="{notfound_urls_prefix}index.html">home page</a>, or
<a href="{notfound_urls_prefix}search.html">search</a> for a function, an error message or a question.</p>""",
}

ogp_site_url = html_baseurl
ogp_site_name = "funcdiff"
ogp_social_cards = {"enable": False}  # a page's own figure says more
ogp_use_first_image = True
