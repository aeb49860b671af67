"""Judges every name without a mode on torch's databases: alone, in a batch of two different rows, and once more.

`nox -s unqualified`, with names of operators after `--`, prints what is wrong, and fails if anything is. With a number
before them it looks at so many samples of each, the smallest first.
"""

import sys
import warnings
from collections import Counter
from functools import partial

import torch
from torch.func import vmap

import funcdiff as fd
from _tools.atlas.cases import INEXACT, cases, samples
from _tools.atlas.modes import FIXED, MODES
from funcdiff._safety.culprits import between_cubics
from funcdiff._safety.examination import Examination
from funcdiff._safety.modes import Modes

DIRECTIONS = 2
SAMPLES = 2


def rows_of(x):
    """A batch whose second row is judged: on the first vmap is often right by luck."""
    return torch.stack([x + 0.1, x])


def alone(transform, func, x):
    return transform(func)(x)


def under_vmap(transform, func, x):
    return vmap(transform(func))(rows_of(x))[1]


def in_a_batch(transform, func, x):
    return transform(func)(rows_of(x))[1]


def summed(transform, func, x):
    return transform(lambda rows: torch.stack([func(row) for row in rows]))(rows_of(x))[1]


def product(func, x, v):
    return fd.hvp(func, (x,), (v,))


def operator(func, x, v):
    return fd.hvp_operator(func, x)(v)


def products_under_vmap(by, func, x, v):
    return vmap(lambda row: by(func, row, v))(rows_of(x))[1]


def hessian_of(by, func, x):
    """The Hessian of a function with one output, by a product for each axis."""
    return torch.stack([by(func, x, axis) for axis in torch.eye(len(x)).to(x)])


def slopes(derivative, func, x):
    """The derivative of every entry of what `derivative` returns, by plain autograd: of Jacobians, Hessians."""
    x = x.detach().requires_grad_()
    found = derivative(func, x)
    rows = [torch.autograd.grad(entry, x, retain_graph=True)[0] for entry in found.flatten()]
    return torch.stack(rows).reshape(*found.shape, *x.shape)


def trained(derivative, func, x):
    """The gradient of a Laplacian by a shift that `func` captured, as a loss is differentiated by parameters."""
    shift = torch.zeros_like(x, requires_grad=True)
    (found,) = torch.autograd.grad(traced(derivative(lambda y: func(y + shift), x)), shift)
    return found


def differentiated(derivative, func, x):
    """The gradient of a Laplacian by the point."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(traced(derivative(func, x)), x)[0]


def traced(found):
    """The Laplacian, out of a Hessian, its diagonal or itself."""
    return found.trace() if found.dim() == 2 else found.sum()


FIRST = {
    "jacobian": partial(alone, fd.jacobian),
    "jacobian, vmap": partial(under_vmap, fd.jacobian),
    "batch_jacobian": partial(in_a_batch, fd.batch_jacobian),
    "batch_jacobian_summed": partial(summed, fd.batch_jacobian_summed),
}
SECOND = {
    "hessian": partial(alone, fd.hessian),
    "hessian, vmap": partial(under_vmap, fd.hessian),
    "batch_hessian": partial(in_a_batch, fd.batch_hessian),
    "batch_hessian_summed": partial(summed, fd.batch_hessian_summed),
}
PRODUCTS = {
    "hvp": product,
    "hvp, vmap": partial(products_under_vmap, product),
    "hvp_operator": operator,
    "hvp_operator, vmap": partial(products_under_vmap, operator),
}
DIAGONALS = {
    "hessian_diagonal": partial(alone, fd.hessian_diagonal),
    "hessian_diagonal, vmap": partial(under_vmap, fd.hessian_diagonal),
}
LAPLACIANS = {"laplacian": partial(alone, fd.laplacian), "laplacian, vmap": partial(under_vmap, fd.laplacian)}
HESSIANS = SECOND | {name: partial(hessian_of, by) for name, by in PRODUCTS.items()} | DIAGONALS | LAPLACIANS
NAMES = Modes(
    FIRST,
    SECOND | {f"{name}, once more": partial(slopes, derivative) for name, derivative in FIRST.items()},
    PRODUCTS,
    DIAGONALS,
    LAPLACIANS,
    {f"{name}, once more": partial(differentiated, derivative) for name, derivative in HESSIANS.items()}
    | {f"{name}, trained": partial(trained, derivative) for name, derivative in HESSIANS.items()},
)
# Recipes by name, with whose help differences judge.
EVERY = Modes(*({name: one for name, one in a.items() if name in FIXED} | b for a, b in zip(MODES, NAMES, strict=True)))


def judged(sample):
    """The verdicts on every name, or why there is nothing to judge."""
    subject = sample.subject(DIRECTIONS)
    func = between_cubics(subject, torch.zeros(subject.size, dtype=torch.float64))
    names = [name for group in NAMES for name in group]
    return Examination(func, subject.size, modes=EVERY).verdicts(names)


def main(*names, number=SAMPLES):
    """Judge every case, or those named."""
    outcomes, wrong = Counter(), []
    for key in cases():
        if key[1] in INEXACT or (names and key[1] not in names):
            continue
        for index, sample in enumerate(sorted(samples(key), key=lambda sample: sample.size)[:number]):
            fd.clear_plans()
            try:
                verdicts = judged(sample)
            except Exception as error:  # complex, integer, random
                outcomes[f"nothing to judge: {type(error).__name__}"] += 1
                continue
            outcomes.update(f"{verdict.outcome}" for verdict in verdicts)
            for verdict in verdicts:
                if verdict.outcome == "wrong":
                    wrong.append(key)
                    print(*key, index, verdict.mode, f"wrong by {verdict.error:.1e}", verdict.detail, flush=True)
    print(dict(outcomes), len(set(wrong)), "cases wrong")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    named = sys.argv[1:]
    main(*(name for name in named if not name.isdigit()), number=int(next(filter(str.isdigit, named), SAMPLES)))
