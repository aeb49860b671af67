"""The order in which the gallery is read."""

from pathlib import Path

# Folder to tutorial to its short title, which stands in the sidebar.
ORDER = {
    "jacobians": {
        "loop_against_vmap": "Loop or vmap?",
        "jacrev_against_jacfwd": "Reverse or forward mode?",
        "winner_map": "Which mode wins where?",
        "six_ways": "Six interfaces of torch",
        "weights_and_biases": "Weights and biases",
    },
    "hessians": {
        "four_hessians": "Four compositions",
        "taylor_mode": "Taylor mode",
        "when_they_disagree": "When two Hessians disagree",
        "loss_parameters": "Hessian of a loss",
    },
    "batches": {
        "per_row": "One for each row",
        "sum_trick": "Sum over the rows",
        "chunk_size": "Chunk size and memory",
    },
    "sparse": {
        "passes": "How many passes?",
        "stiff": "Stiff equations",
    },
    "products": {
        "hvp_four_ways": "Hessian-vector products",
        "vhp_and_symmetry": "Vector-Hessian products",
        "many_vectors": "Many vectors",
    },
    "networks": {
        "cost": "Cost of derivatives",
        "allocator": "Memory allocator",
        "training": "Training a surrogate",
        "derivatives": "Derivatives of a surrogate",
        "errors": "Errors of derivatives",
        "lessons": "Better derivatives",
        "numpy_in_out": "NumPy in and out",
    },
    "uses": {
        "newton_with_scipy": "Newton's method with SciPy",
        "curvature_spectrum": "Spectrum of curvature",
        "physics_informed": "Physics-informed loss",
        "jacobian_regularisation": "Jacobian regularization",
    },
    "jobs": {
        "vibrations": "Vibrations of a molecule",
        "directions": "GGN and Hessian",
        "surrogate_posterior": "Posterior of a surrogate",
    },
    "distributed": {
        "right_product": "Data on several machines",
        "rows_of_a_hessian": "Rows over processes",
    },
    "measuring": {
        "how_we_measure": "How we measure",
        "compiled": "torch.compile",
        "prepared": "Prepared derivatives",
    },
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
