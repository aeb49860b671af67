"""Are the derivatives of this function right? Every recipe, judged by differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from funcdiff._safety.culprits import responsible
from funcdiff._safety.examination import Examination
from funcdiff._safety.report import DerivativeReport
from funcdiff._safety.vector_function import VectorFunction
from funcdiff._torch.trees import tree_leaves
from funcdiff.checks.registry import RECIPES


def check_derivatives(
    func: Callable[..., Any], *primals: Any, directions: int | None = 8, seed: int = 0
) -> DerivativeReport:
    """Test which Jacobian, Hessian and HVP recipes are right on `func`, by comparing them with finite differences.

    The result is a table with a verdict for each recipe. If one is wrong, each torch operation inside `func` is judged
    alone, and the table names the operation at fault.

    The check works in float64, on copies of the floating-point tensors in `primals`, all of which are differentiated,
    and of `func` itself if it is a module. The differences are central and extrapolated, with an estimate of the error
    of each entry. A recipe is called wrong only if other differences, or another recipe that is right, confirm it.

    Args:
        func: a function of tensors, or pytrees of them, to a tensor or a pytree; outputs that are not floating-point
            are left out. Called with `primals` many times; a state it keeps outside a module is its own.
        *primals: the point; anything but floating-point tensors is passed on as it is.
        directions: With more inputs or outputs than this, that many random combinations are tested instead, so a large
            network takes no longer. None tests every entry.
        seed: The seed of the random directions.

    Returns:
        A `DerivativeReport` with `.ok`, `.right`, `.wrong` and `.advice`, and a verdict for each recipe. `print()`
        shows a table.

    Raises:
        TypeError: no floating-point tensor, or a complex one, among the primals or in the result; or a result of lower
            precision than float64.
        ValueError: `func` fails at float64 copies, `primals` or its value there are not finite, or `directions` is not
            positive.

    Cost: 10 to 20 evaluations of `func` for each input or direction, as many evaluations of its Jacobian, and one run
    of each recipe: seconds for a small network.

    Source: D. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)" (1982); the random directions follow JAX's
    `check_grads`.

    Example:
        >>> import torch
        >>> report = check_derivatives(torch.sin, torch.tensor([0.5, 1.0]))
        >>> report.ok, report.wrong
        (True, ())
    """
    if directions is not None and directions < 1:
        raise ValueError(f"expected directions to be a positive int, or None for every entry, got {directions}")
    cuda = {x.device for x in tree_leaves(primals) if isinstance(x, torch.Tensor) and x.is_cuda}
    with torch.random.fork_rng(devices=cuda):
        subject = VectorFunction(func, primals, directions, seed)
        examination = Examination(subject, subject.size, subject.device, modes=RECIPES, seed=seed)
        verdicts = examination.verdicts()
        wrong = [verdict.mode for verdict in verdicts if verdict.outcome == "wrong"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in the examination
            blamed = responsible(subject, subject.size, wrong, RECIPES, subject.device) if wrong else []
    return DerivativeReport(str(subject), tuple(verdicts), tuple(blamed), subject.evaluations, subject.mutates)
