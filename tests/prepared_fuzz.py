"""Prepares derivatives of random functions at one point, and judges them at another one, with their gradients.

`nox -s prepared -- fuzz SEED NUMBER`: prints what differs or is refused, and fails if one differs. A line that begins
with a seed can be repeated: `nox -s prepared -- fuzz SEED 1`.
"""

import logging
import random
import sys
import warnings
from collections import Counter

import torch
from fuzz.functions import drawn
from torch.func import hessian, jacfwd, jacrev, vmap

import funcdiff as fd

ALONE = {
    "jacobian": fd.jacobian,
    "hessian": fd.hessian,
    "hessian_diagonal": fd.hessian_diagonal,
    "laplacian": fd.laplacian,
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "torch.func.hessian": hessian,
}
ROWS = {
    "batch_jacobian": fd.batch_jacobian,
    "batch_hessian": fd.batch_hessian,
    "vmap of laplacian": lambda func: vmap(fd.laplacian(func)),
}
OF_NUMBERS = {
    "grad": torch.func.grad,
    "hvp": lambda func: lambda x: fd.hvp(func, (x,), (x.cos(),)),
}
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}


def judged(seed):
    """The verdicts on some derivatives of the function of a seed."""
    func, points = drawn(seed)
    draw = random.Random(seed)
    dtype = draw.choice(list(ROUNDING))
    alone = ALONE if func.outputs else ALONE | OF_NUMBERS
    example, fresh = points.to(dtype)
    for name in draw.sample(list(alone), 2):
        yield name, verdict(alone[name](func), example, fresh, draw.random() < 0.3)
    (name,) = draw.sample(list(ROWS), 1)
    rows = torch.stack([example, fresh])
    yield name, verdict(ROWS[name](func), rows, rows.flip(0) * 0.9, draw.random() < 0.3)


def verdict(function, example, fresh, differentiated):
    """Right, wrong, refused, or nothing to judge where the function has no derivative at one of the points."""
    try:
        expected = outcome(function, fresh, differentiated)
        if not all(map(torch.Tensor.allclose, expected, outcome(function, fresh, differentiated))):
            return "not repeatable"
        function(example)
    except Exception as error:
        return f"the function itself raises {type(error).__name__}"
    try:
        prepared = fd.prepare(function, example.clone().requires_grad_(differentiated))
    except RuntimeError as error:
        return f"refused: {str(error)[:70]}"
    try:
        found = outcome(prepared, fresh, differentiated)
    except Exception as error:
        return f"wrong: raises {error!r:.90}"
    rounding = ROUNDING[fresh.dtype]
    gaps = [
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) if a.numel() else 0.0
        for a, b in zip(found, expected, strict=True)
    ]
    return "right" if max(gaps) <= rounding else f"wrong: {max(gaps):.1e} off"


def outcome(function, x, differentiated):
    """The result, and the gradient of its sum where it is differentiated again."""
    x = x.clone().requires_grad_(differentiated)
    result = function(x)
    if not (differentiated and result.requires_grad):
        return [result.detach()]
    return [result.detach(), torch.autograd.grad(result.sum(), x, materialize_grads=True)[0]]


def main(seed, number):
    """Judge the functions of `number` seeds."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    verdicts = Counter()
    for one in range(seed, seed + number):
        for name, found in judged(one):
            verdicts[found if not found.startswith("wrong") else "wrong"] += 1
            if found.startswith("wrong"):
                print(one, name, found, flush=True)
    for found, count in verdicts.most_common():
        print(count, found)
    raise SystemExit(verdicts["wrong"] > 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
