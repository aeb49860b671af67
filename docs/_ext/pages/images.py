"""Give each picture its size, let it load late, so that a page does not shift meanwhile, and keep thumbnails light."""

import re
from pathlib import Path

from PIL import Image

_IMG = re.compile(r"<img\b[^>]*?\bsrc=\"([^\"]+)\"[^>]*?>")


def _sized(tag, source, page):
    file = (page.parent / source).resolve()
    if file.suffix != ".png" or not file.exists() or "loading=" in tag:  # a page kept from the last build is done
        return tag
    with Image.open(file) as image:
        width, height = image.size
    tag = re.sub(r'\s(style|width|height)="[^"]*"', "", tag)
    return tag.replace("<img", f'<img width="{width // 2}" height="{height // 2}" loading="lazy" decoding="async"', 1)


def size_images(app, exception):
    """Write width and height into the image tags of every page; pictures are drawn at twice their size."""
    if exception or app.builder.name != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        sized = _IMG.sub(lambda match, page=page: _sized(match[0], match[1], page), text)
        if sized != text:
            page.write_text(sized, encoding="utf-8")


def lighten(app, exception):
    """Write each thumbnail with a palette, as the figures are."""
    if exception or app.builder.name != "html":
        return
    for file in Path(app.outdir, "_images").glob("*_thumb.png"):
        with Image.open(file) as image:
            if image.mode != "P":
                light = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
                light.save(file, optimize=True)


def setup(app):
    """Size the images once all pages and images are written."""
    app.connect("build-finished", size_images, priority=800)
    app.connect("build-finished", lighten, priority=810)
