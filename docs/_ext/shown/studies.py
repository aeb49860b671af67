"""The published studies this guide covers, row by row: where each is told, found in the sources.

`.. studies::` becomes the table. A row names its tutorial and a line of it; a line that is not there fails the build.
"""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from _ext.gallery.tutorials import GALLERY
from _ext.pages.tables import table

# Study, what it does, the tutorial that tells it, and the line where.
ROWS = [
    ("A", "the row loop, 16 inputs and outputs", "jacobians/loop_against_vmap", "def row_loop("),
    ("A", "vmap over vjp", "jacobians/loop_against_vmap", "def vmap_over_vjp("),
    ("A", "jacrev, equal to the loop", "jacobians/loop_against_vmap", '"torch.func.jacrev": '),
    ("A", "with respect to weight and bias, argnums=(0, 1)", "jacobians/weights_and_biases", "argnums=(0, 1))(*args)"),
    ("A", "tall: 32 inputs, 2048 outputs", "jacobians/jacrev_against_jacfwd", "tall_times = compare("),
    ("A", "wide: 2048 inputs, 32 outputs", "jacobians/jacrev_against_jacfwd", "wide_times = compare("),
    ("A", "Hessian, 512 inputs, 32 outputs", "hessians/four_hessians", "times = compare(wide"),
    ("A", "Jacobian of each row of a batch, in_dims", "batches/per_row", "by_hand = vmap(jacrev("),
    ("A", "the sum over the batch", "batches/sum_trick", "def jacobian_of_sum("),
    ("A", "Hessian of each row of a batch", "batches/per_row", "second = batch_hessian("),
    ("A", "Hessian of the sum over the batch", "batches/sum_trick", "def hessian_of_sum("),
    ("A", "HVP of the sine sum, 2048 inputs, forward over reverse", "products/hvp_four_ways", "jvp(grad(sine_sum)"),
    ("A", "HVP of the sine sum, reverse over reverse", "products/hvp_four_ways", "vjp(grad(sine_sum)"),
    ("A", "vector-Hessian products", "products/vhp_and_symmetry", "vhp("),
    ("B", "three methods in reverse mode", "jacobians/six_ways", "def vmap_over_vjp("),
    ("B", "three methods in forward mode", "jacobians/six_ways", "def dual_loop("),
    ("B", "the sum of the rows, with backward()", "jacobians/six_ways", "y.backward(gradient=torch.ones_like(y))"),
    ("B", "16 inputs, 10240 outputs", "jacobians/six_ways", "*layer(16, 10240)"),
    ("B", "10240 inputs, 16 outputs", "jacobians/six_ways", "*layer(10240, 16)"),
    ("B", "a batch of 4", "jacobians/six_ways", "# A batch of 4"),
    ("B", "with respect to the weight, 16384 entries", "jacobians/weights_and_biases", "many_times = compare("),
    ("B", "with respect to the bias", "jacobians/weights_and_biases", "bias_alone = {"),
    ("C", "evaluation with NumPy in and out, and the round trip", "networks/cost", '"round trip": round_trip'),
    ("C", "both Jacobians and the Hessians, timed", "networks/cost", "times = compare("),
    ("C", "every Hessian counted", "networks/cost", 'fewer_flops_than="hessian_reverse_over_reverse"'),
    ("D", "the function and its formula", "networks/training", "surface"),
    ("D", "training", "networks/training", "fit("),
    ("D", "profiles of first and second derivatives", "networks/derivatives", "plot_profiles("),
    ("D", "maps of first and second derivatives", "networks/derivatives", "plot_maps("),
    ("D", "errors, relative and absolute", "networks/errors", "relative_error("),
    ("D", "what the errors depend on", "networks/lessons", "Sobolev"),
]


def line_of(tutorial, text):
    """The number of the first line of the tutorial that holds the text."""
    for number, line in enumerate((GALLERY / f"{tutorial}.py").read_text(encoding="utf-8").split("\n"), start=1):
        if text in line:
            return number
    raise ValueError(f"docs/_ext/shown/studies.py: no line of gallery/{tutorial}.py holds {text!r}")


class Studies(SphinxDirective):
    """`.. studies::`."""

    def run(self):
        """The table of rows, each linked to its tutorial."""
        rows = []
        for study, what, tutorial, text in ROWS:
            self.env.note_dependency(GALLERY / f"{tutorial}.py")
            page = nodes.reference("", tutorial, refuri=f"../tutorials/{tutorial}.html", internal=True)
            rows.append([study, what, page, str(line_of(tutorial, text))])
        return [table(["study", "row", "tutorial", "line"], rows, [1, 5, 4, 1])]


def setup(app):
    """Register the directive."""
    app.add_directive("studies", Studies)
    return {"parallel_read_safe": True}
