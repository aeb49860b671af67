"""Prepares derivatives of every operator and layer of torch's databases, and judges them on fresh arguments.

`python tests/prepared_soundness.py [NAME ...]`: prints what differs, how many were refused and why, and the counts.
"""

import sys
import warnings
from collections import Counter

import torch
from torch.func import jacfwd, jacrev

import funcdiff as fd
from _tools.atlas.cases import cases, samples

RECIPES = {"jacrev": jacrev, "jacfwd": jacfwd, "hessian_double_backward": fd.hessian_double_backward}


def fresh(leaf):
    """Other numbers of the same kind."""
    return leaf * 0.9 + 0.01 if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def judged(sample, recipe):
    """Right, wrong, refused (with the reason), or nothing to judge where torch itself cannot or draws."""
    moving, leaves = sample.first_alone(), sample.first_alone().leaves
    if len(leaves) != 1 or not isinstance(leaves[0], torch.Tensor) or not leaves[0].is_floating_point():
        return "not one tensor"
    x = leaves[0].detach()
    try:
        function = recipe(moving.func)
        expected = function(fresh(x))
        if not same(expected, function(fresh(x))):
            return "not repeatable"
    except Exception as error:  # torch refuses the operator itself: nothing to prepare
        return f"torch: {type(error).__name__}"
    try:
        prepared = fd.prepare(function, x)
        result = prepared(fresh(x))
    except RuntimeError as error:
        return f"refused: {str(error)[:60]}"
    return "right" if same(expected, result) else "wrong"


def same(a, b):
    """Whether two results agree to rounding."""
    try:
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, equal_nan=True)
    except AssertionError:
        return False
    return True


def main(names):
    """Judge every case, or those named."""
    warnings.simplefilter("ignore")
    verdicts = Counter()
    for key in cases():
        if names and key[1] not in names:
            continue
        for sample in samples(key)[:3]:
            for name, recipe in RECIPES.items():
                verdict = judged(sample, recipe)
                verdicts[verdict] += 1
                if verdict == "wrong" or verdict.startswith("refused"):
                    print(key, name, verdict, flush=True)
    for verdict, count in verdicts.most_common():
        print(count, verdict)


if __name__ == "__main__":
    main(sys.argv[1:])
