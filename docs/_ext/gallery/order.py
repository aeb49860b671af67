"""The order in which the gallery is read."""

from pathlib import Path

ORDER = {
    "jacobians": ["loop_against_vmap", "jacrev_against_jacfwd", "winner_map", "six_ways", "weights_and_biases"],
    "hessians": ["four_hessians", "taylor_mode", "when_they_disagree", "loss_parameters"],
    "batches": ["per_row", "sum_trick", "chunk_size"],
    "sparse": ["passes", "stiff"],
    "products": ["hvp_four_ways", "vhp_and_symmetry", "many_vectors"],
    "networks": ["cost", "allocator", "training", "derivatives", "errors", "lessons", "numpy_in_out"],
    "uses": ["newton_with_scipy", "curvature_spectrum", "physics_informed", "jacobian_regularisation"],
    "measuring": ["how_we_measure", "compiled"],
}


def _position(name, names):
    if name not in names:
        raise ValueError(f"gallery: {name} has no place in docs/_ext/gallery/order.py; it knows {', '.join(names)}")
    return names.index(name)


def folders(path):
    """The place of a folder of the gallery."""
    return _position(Path(path).name, list(ORDER))


def tutorials(name):
    """The place of a tutorial within its folder."""
    stem = Path(name).stem
    return _position(stem, [tutorial for folder in ORDER.values() for tutorial in folder])
