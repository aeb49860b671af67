"""The exact recipes by what they compute, to call with all their options: what one must pass they all must."""

from funcdiff.checks.registry import EXACT


def of(*kinds):
    """The recipes of these kinds."""
    return [entry.recipe for entry in EXACT if entry.kind in kinds]


def at_a_point(operator):
    """An operator called as a product is."""

    def product(func, primals, tangents):
        return operator(func, *primals)(*tangents)

    product.__name__ = operator.__name__
    return product


JACOBIANS = of("jacobian")
HESSIANS = of("hessian")
DIAGONALS = of("diagonal")
TRANSFORMS = [*JACOBIANS, *HESSIANS, *DIAGONALS, *of("laplacian")]
PRODUCTS = [*of("product"), *map(at_a_point, of("operator"))]
# Recipes that torch.compile cannot take as one graph where func captures a tensor, each with the reason.
NOT_COMPILED = {
    "batch_hessian": "torch 2.13 fails an assertion of its own, as it does for vmap(torch.func.jacfwd(func))",
    "bilaplacian": "torch 2.13 ends the process when it runs the compiled graph, so that it is refused",
    "trace_estimate": "its draws differ from those of the eager function",
    "diagonal_estimate": "its draws differ from those of the eager function",
    "spectral_density": "its draws differ from those of the eager function",
    "jacobian_sparse": "it runs func to find the pattern, which a compiled function cannot",
    "hessian_sparse": "it runs func to find the pattern, which a compiled function cannot",
}
