"""Random compositions of operations: no entry is lacking in a pattern. `nox -s patterns` tries thousands."""

import argparse

import torch
from sparse_problems import STEPS, composition, random_point
from torch.func import jacrev

import funcdiff as fd


def missing_and_gap(seed):
    """Of a random composition: the entries that the pattern lacks, and the difference of the matrices."""
    func, names, x = composition(seed)
    dense = jacrev(func)(x)
    pattern = fd.jacobian_pattern(func, x)
    filled = torch.zeros(dense.shape, dtype=torch.bool)
    filled[pattern.rows, pattern.columns] = True
    other = jacrev(func)(x + 0.1 * random_point(x.numel(), seed=seed + 1))
    beyond = ((dense != 0) & ~filled).sum()
    if "argsort" not in names and "sort" not in names:
        beyond = beyond + ((other != 0) & ~filled).sum()
    gap = (fd.jacobian_sparse(func)(x).to_dense() - dense).abs().max() / dense.abs().max().clamp(min=1)
    return int(beyond), float(gap), names


def test_random_compositions():
    assert len(STEPS) >= 60
    for seed in range(60):
        beyond, gap, names = missing_and_gap(seed)
        assert beyond == 0, (seed, names)
        assert gap < 1e-10, (seed, names)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Random compositions against dense Jacobians.")
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--number", type=int, default=2000)
    given = parser.parse_args()
    failures = 0
    for seed in range(given.first, given.first + given.number):
        try:
            beyond, gap, names = missing_and_gap(seed)
        except Exception as error:  # which a composition raises is said, and the others are tried
            beyond, gap, names = -1, float("nan"), [*composition(seed)[1], f"{type(error).__name__}: {error}"[:200]]
        if beyond or not gap < 1e-10:
            failures += 1
            print(f"seed {seed}: {beyond} entries lacking, {gap:.1e} apart: {', '.join(names)}")
    print(f"{given.number} compositions, {failures} failures")
    raise SystemExit(bool(failures))
