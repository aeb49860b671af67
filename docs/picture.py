"""Draw the README's picture, `docs/readme.svg`, from exact counts: it is the same on every machine.

`nox -s picture` writes it anew; a test holds it against the counts.
"""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

import funcdiff
from funcdiff.measure import count
from funcdiff.plots import colour
from funcdiff.problems import study_network

PICTURE = Path(__file__).parent / "readme.svg"
WAYS = ["taylor", "forward_over_forward", "forward_over_reverse", "reverse_over_forward", "reverse_over_reverse"]


def costs():
    """Count the Hessian of a network 5 -> 1000 -> 1000 -> 25 over 100 rows, by each recipe, on the meta device."""
    network = study_network().requires_grad_(False).to("meta")
    recipes = {f"hessian_{name}": getattr(funcdiff, f"hessian_{name}") for name in WAYS}
    batch = torch.empty(100, 5, device="meta")
    return count({name: torch.func.vmap(recipe(network)) for name, recipe in recipes.items()}, batch)


def label(cost):
    """What stands beside a bar: arithmetic and memory."""
    flops, _, _, peak = cost.cells
    return f"{flops}, {peak}"


def draw():
    """Draw a bar for each recipe."""
    counted = costs()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "funcdiff", "font.size": 11}):
        figure, axes = plt.subplots(figsize=(8.4, 3.0), layout="constrained")
        for row, (name, cost) in enumerate(counted.items()):
            axes.barh(row, cost.flops, color=colour(name), height=0.6)
            axes.annotate(label(cost), (cost.flops, row), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(counted)), list(counted))
        axes.invert_yaxis()
        axes.set_xlim(right=1.3 * max(cost.flops for cost in counted.values()))
        axes.xaxis.set_visible(False)
        axes.spines[:].set_visible(False)
        title = "One Hessian of a network, five ways to write it: arithmetic and peak memory, counted"
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        figure.savefig(PICTURE, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    mpl.use("svg")
    draw()
