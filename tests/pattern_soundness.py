"""Patterns against the entries of dense Jacobians, over torch's operator database: a pattern contains them all."""

import argparse
import warnings
from collections import Counter

import torch
from torch.func import jacrev

from funcdiff._sparse.tracer import trace
from funcdiff._torch.trees import tree_leaves, tree_map

LARGEST = 400  # inputs or outputs of a sample that is tried


def samples(op, count):
    """Functions of one float64 tensor, with a point for each: the samples of an operator in the database."""
    found = op.sample_inputs("cpu", torch.float64, requires_grad=False)
    for _, sample in zip(range(count), found, strict=False):
        arguments = (sample.input, *sample.args)
        leaves = [x for x in tree_leaves(arguments) if isinstance(x, torch.Tensor) and x.dtype == torch.float64]
        if not leaves or any(x.layout is not torch.strided for x in leaves):
            continue
        sizes = [x.numel() for x in leaves]

        def func(v, arguments=arguments, leaves=leaves, sizes=sizes, kwargs=sample.kwargs):
            parts = iter(part.reshape(x.shape) for part, x in zip(v.split(sizes), leaves, strict=True))
            chosen = {id(x): part for x, part in zip(leaves, parts, strict=True)}
            given = tree_map(lambda leaf: chosen.get(id(leaf), leaf), arguments)
            results = tree_leaves(op.op(*given, **kwargs))
            floats = [y.reshape(-1) for y in results if isinstance(y, torch.Tensor) and y.dtype == torch.float64]
            return torch.cat(floats) if floats else v[:0]

        yield func, torch.cat([x.detach().reshape(-1) for x in leaves])


def missing(func, v):
    """Entries of the dense Jacobian that the pattern lacks, what had no rule, and the part of the matrix filled."""
    dense = jacrev(func)(v)
    found = trace(func, [v.clone().requires_grad_()])
    pattern = torch.zeros(dense.shape, dtype=torch.bool)
    pattern[found.pattern.rows, found.pattern.columns] = True
    entries = (dense != 0) & ~dense.isnan()  # where an operation is not differentiable, NaN may stand anywhere
    return int((entries & ~pattern).sum()), found.unknown, int(pattern.sum()), int(entries.sum())


def survey(ops, count):
    """What became of each sample: sound, unsound (with the operator), beyond torch, too large; and what had no rule."""
    outcomes, unknown, unsound, loose, crashed = (Counter() for _ in range(5))
    for op in ops:
        for func, v in samples(op, count):
            try:
                outputs = func(v)
                if not 0 < v.numel() <= LARGEST or not 0 < outputs.numel() <= LARGEST:
                    outcomes["too large"] += 1
                    continue
                torch.manual_seed(0)
                jacrev(func)(v)
            except Exception:  # torch cannot run or differentiate it: no question to us
                outcomes["beyond torch"] += 1
                continue
            torch.manual_seed(0)
            try:
                lacking, without_rule, filled, entries = missing(func, v)
            except Exception as error:
                crashed[f"{op.name}: {type(error).__name__}: {str(error)[:100]}"] += 1
                continue
            outcomes["unsound" if lacking else "sound"] += 1
            outcomes["exact"] += filled == entries
            outcomes["by the dense fallback"] += bool(without_rule)
            unknown.update(without_rule)
            if filled > 3 * entries:
                loose[op.name] += 1
            if lacking:
                unsound[op.name] += 1
    return outcomes, unsound, crashed, unknown, loose


if __name__ == "__main__":
    from torch.testing._internal.common_methods_invocations import op_db

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8, help="of each operator")
    parser.add_argument("names", nargs="*", help="operators, by default all")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for part in survey([op for op in op_db if not given.names or op.name in given.names], given.samples):
        print(dict(part.most_common()))
