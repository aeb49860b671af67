"""What is known to be wrong, by torch's version: the operators that the derivative atlas found each recipe wrong on."""

import json
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

import torch

_FILES = resources.files("funcdiff._safety").joinpath("wrong_in")


class Known(NamedTuple):
    """The operators that each recipe gets wrong; and what that was taken from, if the atlas has no such torch."""

    wrong: Mapping[str, frozenset[str]]
    note: str = ""


def known(version: str) -> Known:
    """What the atlas found with this minor version of torch; what it did not judge there, as found with any other."""
    files = sorted(_FILES.iterdir(), key=lambda file: file.name)
    kept = {file.name.removesuffix(".json"): json.loads(file.read_text())["modes"] for file in files}
    minor = ".".join(version.split(".")[:2])
    every = dict.fromkeys(mode for modes in kept.values() for mode in modes)  # in an order, which pages show
    wrong = {mode: frozenset(name for modes in kept.values() for name in modes.get(mode, ())) for mode in every}
    if minor in kept:
        return Known(wrong | {mode: frozenset(names) for mode, names in kept[minor].items()})
    versions = ", ".join(sorted(kept, key=lambda name: [*map(int, name.split("."))]))
    note = f"The atlas does not cover torch {minor}: a recipe that is wrong with any of torch {versions} is left out"
    return Known(wrong, note)


_FOUND, NOTE = known(torch.__version__)
# Its padding row has no gradient, whatever differences say: torch documents it so, and only reverse mode has it so.
_BY_DEFINITION = {"embedding"}
WRONG = {
    mode: names - _BY_DEFINITION | (_BY_DEFINITION if "forward" in mode else set()) for mode, names in _FOUND.items()
}
# What is wrong with it there is vmap of a norm's gradient, and one output needs none.
RIGHT_ON_ONE = {"hessian_double_backward": frozenset(("native_layer_norm", "native_batch_norm"))}
INSIDE_TRANSFORM = {  # what a recipe on plain autograd becomes inside a transform
    "jacobian_batched_grad": "jacobian_reverse",
    "hessian_double_backward": "hessian_reverse_over_reverse",
    "hvp_double_backward": "hvp_reverse_over_reverse",
}
DIFFERENTIATED = {  # what a Jacobian by a recipe becomes when it is differentiated once more
    "jacobian_forward": "hessian_reverse_over_forward",
    "jacobian_reverse": "hessian_reverse_over_reverse",
    "jacobian_batched_grad": "hessian_double_backward",
    "jacobian_loop": "hessian_double_backward",
}
JETS = frozenset(("jacobian_taylor", "hessian_taylor", "hessian_diagonal", "laplacian"))  # those by Taylor rules
CORRECTED = frozenset(  # these run func with what has a plain form written as that
    (
        "hessian_double_backward",
        "hessian_forward_over_reverse",
        "hessian_reverse_over_reverse",
        "hessian_forward_over_forward",
        "hvp_double_backward",
        "hvp_forward_over_reverse",
        "hvp_reverse_over_reverse",
    )
)
