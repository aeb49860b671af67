"""Prepares derivatives of every operator and layer of torch's databases, and judges them on fresh arguments.

`nox -s prepared`, with names of operators after `--`: prints what differs or is refused, and fails if one differs. An
operator whose result the derivative does not use is left out, and with it the errors that it would raise: quiet.
"""

import sys
import warnings
from collections import Counter

import torch
from torch.func import jacfwd, jacrev
from torch.utils._pytree import tree_flatten, tree_unflatten

import funcdiff as fd
from _tools.atlas.cases import cases, samples

LARGEST = 2**15  # numbers of a result: a larger one shows no more, and a Hessian of some samples fills the memory
RECIPES = {"jacrev": jacrev, "jacfwd": jacfwd, "hessian_double_backward": fd.hessian_double_backward}


def with_zeros(x):
    """Zero in every second place, where formulas of their own may apply."""
    return (x.flatten() * (torch.arange(x.numel()) % 2)).view_as(x)


FRESH = {
    "beside": lambda x: x * 0.9 + 0.01,
    "turned": lambda x: x.flatten().flip(0).view_as(x),
    "of the other sign": lambda x: -x,
    "with zeros": with_zeros,
    "equal": lambda x: torch.full_like(x, 0.5),
}


def judged(sample, recipe):
    """Right, wrong, refused (with the reason), or nothing to judge where torch itself cannot or draws."""
    if not sample.moving:
        return "nothing to differentiate"
    leaves, tree = tree_flatten(sample.primals)
    first = sample.moving[0]
    x = leaves[first].detach()

    def func(x):
        return sample.func(*tree_unflatten([*leaves[:first], x, *leaves[first + 1 :]], tree))

    function = recipe(func)
    try:
        beside = FRESH["beside"](x)
        outputs = sum(y.numel() for y in tree_flatten(func(x))[0] if isinstance(y, torch.Tensor))
        if outputs * x.numel() ** (2 if recipe is fd.hessian_double_backward else 1) > LARGEST:
            return "too large"
        if not same(function(beside), function(beside)):
            return "not repeatable"
    except Exception as error:  # torch refuses the operator itself: nothing to prepare
        return f"torch: {type(error).__name__}"
    try:
        prepared = fd.prepare(function, x)
    except RuntimeError as error:
        return f"refused: {str(error)[:60]}"
    except Exception as error:
        return f"wrong: preparing raises {error!r:.90}"
    verdicts = {f"{found} {name}" for name, fresh in FRESH.items() if (found := compared(function, prepared, fresh(x)))}
    held = [leaf.detach() for i, leaf in enumerate(leaves) if i != first and isinstance(leaf, torch.Tensor)]
    turn(held)  # by reference: the next call sees what is written
    verdicts |= {f"{found} after a write" for found in [compared(function, prepared, x)] if found}
    turn(held)
    return max(verdicts, default="right")  # the word wrong comes last


def turn(tensors):
    """Write the numbers of each in the other order."""
    for tensor in tensors:
        tensor.copy_(FRESH["turned"](tensor).clone())


def compared(function, prepared, x):
    """Wrong, quiet where the function raises, or nothing where both do the same."""
    try:
        expected = function(x)
    except Exception as error:
        expected = error
    try:
        result = prepared(x)
    except Exception as error:
        return "" if isinstance(expected, Exception) else f"wrong: raises {error!r:.90}"
    if isinstance(expected, Exception):
        return f"quiet: {expected!r:.90}"
    return "" if same(expected, result) else "wrong: another result"


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
                if verdict.startswith(("wrong", "refused", "quiet")):
                    print(key, name, verdict, flush=True)
    for verdict, count in verdicts.most_common():
        print(count, verdict)
    raise SystemExit(any(verdict.startswith("wrong") for verdict in verdicts))


if __name__ == "__main__":
    main(sys.argv[1:])
