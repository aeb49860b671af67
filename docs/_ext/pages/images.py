"""Give each picture its size, let it load late, so that a page does not shift meanwhile, and keep thumbnails light."""

from pathlib import Path

from PIL import Image
from sphinx.writers.html5 import HTML5Translator


class SizedPictures(HTML5Translator):
    """Sphinx's own HTML, but with width and height in the tag of each picture, which is drawn at twice its size."""

    def visit_image(self, node):
        self._picture = Path(self.builder.srcdir, node["uri"])
        super().visit_image(node)

    def image_size(self, node):
        if self._picture.suffix != ".png" or not self._picture.exists():  # Sphinx warns of one that is missing
            return super().image_size(node)
        with Image.open(self._picture) as image:
            width, height = image.size
        return {"width": str(width // 2), "height": str(height // 2), "loading": "lazy", "decoding": "async"}


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
    """Write pages with sized pictures, and thumbnails anew once all are there."""
    app.set_translator("html", SizedPictures)
    app.connect("build-finished", lighten, priority=810)
    return {"parallel_read_safe": True}
