"""Draw the README's picture, `docs/readme.svg`, from exact counts: it is the same on every machine.

`nox -s picture` writes it anew; a test holds it against the counts.
"""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

from funcdiff import batch_hessian
from funcdiff._tables import amount_of_bytes, amount_of_flops
from funcdiff.measure import count
from funcdiff.plots import colour
from funcdiff.problems import study_network

PICTURE = Path(__file__).parent / "readme.svg"
THEIRS, OURS = "vmap(torch.func.hessian(net))(X)", "batch_hessian(net)(X)"
HUES = {THEIRS: colour("hessian_forward_over_reverse"), OURS: colour("batch_hessian")}
PANELS = {"flops": ("Matrix FLOPs", amount_of_flops), "peak_bytes": ("Peak memory", amount_of_bytes)}


def costs():
    """Count the Hessian of each of 100 rows of a network 5 -> 1000 -> 1000 -> 25, on the meta device."""
    net = study_network().requires_grad_(False).to("meta")
    batch = torch.empty(100, 5, device="meta")
    return count({THEIRS: torch.func.vmap(torch.func.hessian(net)), OURS: batch_hessian(net)}, batch)


def label(cost, part):
    """What stands beside a bar."""
    return PANELS[part][1](getattr(cost, part))


def title(counted):
    """The factors, from the counts."""
    flops, memory = (getattr(counted[THEIRS], part) / getattr(counted[OURS], part) for part in PANELS)
    return f"The same Hessian with {flops:.2g}× fewer FLOPs and {memory:.2g}× less memory"


def draw():
    """Draw a panel for each quantity, and in it a bar for each of the two."""
    counted = costs()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "funcdiff", "font.size": 11}):
        figure, axes = plt.subplots(2, 1, figsize=(8.4, 2.9), layout="constrained")
        for ax, (part, (name, _)) in zip(axes, PANELS.items(), strict=True):
            for row, (method, cost) in enumerate(counted.items()):
                ax.barh(row, getattr(cost, part), color=HUES[method], height=0.7)
                ax.annotate(
                    label(cost, part), (getattr(cost, part), row), (6, 0), textcoords="offset points", va="center"
                )
            ax.set_yticks(range(len(counted)), list(counted), family="monospace")
            ax.invert_yaxis()
            ax.set_xlim(right=1.2 * max(getattr(cost, part) for cost in counted.values()))
            ax.xaxis.set_visible(False)
            ax.spines[:].set_visible(False)
            ax.tick_params(left=False)
            ax.set_title(name, loc="left", fontsize=10, color="#555555")
        figure.suptitle(title(counted), x=0.01, ha="left", fontsize=13, weight="bold")
        figure.savefig(PICTURE, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    mpl.use("svg")
    draw()
