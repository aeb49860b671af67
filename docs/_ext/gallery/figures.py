"""Figures for light and dark pages: each is saved twice, sharp on dense screens, with its numbers folded beneath."""

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.colors import rgb_to_hsv, to_rgba
from PIL import Image

from funcdiff.plots import numbers

_BACKGROUND, _INK = "#131416", "#cfd0d0"  # Furo's dark background and foreground
_GETTERS = ("color", "edgecolor", "facecolor", "markeredgecolor", "markerfacecolor")
_DPI = 200

_RST = """
.. image:: /{light}
   :alt: {alt}
   :class: sphx-glr-single-img only-light
   :width: {width}px

.. image:: /{dark}
   :alt: {alt}
   :class: sphx-glr-single-img only-dark
   :width: {width}px

"""


_NUMBERS = """
.. raw:: html

   <details class="numbers"><summary>The numbers of this figure</summary>
   {tables}
   </details>

"""


def _swapped(colour):
    """`colour` for a dark page: greys mirror between ink and background, hues stay."""
    r, g, b, alpha = to_rgba(colour)
    if rgb_to_hsv((r, g, b))[1] > 0.08:
        return colour
    ink, background = to_rgba(_INK), to_rgba(_BACKGROUND)
    return (*(i + (b_ - i) * (r + g + b) / 3 for i, b_ in zip(ink[:3], background[:3], strict=True)), alpha)


def darken(figure):
    """Recolour every neutral artist of `figure` in place."""
    for artist in [figure.patch, *figure.findobj(include_self=False)]:
        if isinstance(artist, mpl.image.AxesImage):
            continue
        for name in _GETTERS:
            getter, setter = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
            if getter is None or setter is None:
                continue
            colour = getter()
            if isinstance(colour, str) and colour in ("auto", "none", "inherit"):
                continue
            if mpl.colors.is_color_like(colour):
                setter(_swapped(colour))
            elif len(colour) and all(mpl.colors.is_color_like(c) for c in colour):
                setter([_swapped(c) for c in colour])
    for axes in figure.axes:
        axes.tick_params(which="both", color=_INK, labelcolor=_INK)


def _titles(figure):
    titles = [figure.get_suptitle(), *(axes.get_title(where) for axes in figure.axes for where in ("left", "center"))]
    return re.sub(r"\s+", " ", ". ".join(title for title in titles if title))


def _folded(tables):
    """The tables of a figure's numbers, behind a line to open them."""
    if not tables:
        return ""
    boxes = (f'<div class="output_html">{table._repr_html_()}</div>' for table in tables)
    return _NUMBERS.format(tables="\n".join(boxes).replace("\n", "\n   "))


def scrape(block, block_vars, gallery_conf):
    """Save and close each open figure; return the reST that shows it in the page's own mode."""
    del block
    rst = ""
    for number in plt.get_fignums():
        figure = plt.figure(number)
        alt = _titles(figure)
        if not alt:
            raise ValueError(f"{block_vars['src_file']}: figure {number} has no title, hence no alternative text")
        tables = numbers(figure)
        light = Path(next(block_vars["image_path_iterator"]))
        dark = light.with_stem(f"{light.stem}_dark")
        figure.savefig(light, dpi=_DPI, facecolor="white")
        figure.set_layout_engine("none")  # it is laid out; to do so again takes as long as to draw it
        darken(figure)
        figure.savefig(dark, dpi=_DPI, facecolor=_BACKGROUND)
        for path in (light, dark):  # a palette keeps a page light
            with Image.open(path) as image:
                image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
                width = image.width // 2
        root = Path(gallery_conf["src_dir"])
        names = {"light": light.relative_to(root).as_posix(), "dark": dark.relative_to(root).as_posix()}
        rst += _RST.format(alt=alt, width=width, **names) + _folded(tables)
    plt.close("all")
    return rst
