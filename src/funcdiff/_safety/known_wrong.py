"""What is known to be wrong: the operators on which the derivative atlas found each recipe wrong."""

import json
from importlib import resources

WRONG = {
    mode: frozenset(operators)
    for mode, operators in json.loads(resources.files("funcdiff._safety").joinpath("known_wrong.json").read_text())[
        "modes"
    ].items()
}
INSIDE_TRANSFORM = {  # what a recipe on plain autograd becomes inside a transform
    "jacobian_batched_grad": "jacobian_reverse",
    "hessian_double_backward": "hessian_reverse_over_reverse",
    "hvp_double_backward": "hvp_reverse_over_reverse",
}
CORRECTED = frozenset(  # these run func with its norms written as compositions of simpler operations
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
