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
    """Check which methods differentiate `func` correctly, by comparing each with finite differences.

    Print the result to see a table, with a verdict for each method for Jacobians, Hessians and Hessian-vector products.
    If a method is wrong, the table names the torch operation in `func` that causes the error. The check works on
    copies in float64: of the arguments, and of `func` if it is a module. If `func` uses another module or data, call
    ``.double()`` on them first.

    Example:
        All methods are right on the sine.

        >>> import torch
        >>> from funcdiff import check_derivatives
        >>> report = check_derivatives(torch.sin, torch.tensor([0.5, 1.0]))
        >>> report.ok, report.wrong
        (True, ())

        A custom function whose backward has the wrong sign makes reverse mode wrong.

        >>> class Wrong(torch.autograd.Function):
        ...     generate_vmap_rule = True
        ...     @staticmethod
        ...     def forward(x):
        ...         return x**2
        ...     @staticmethod
        ...     def setup_context(ctx, inputs, output):
        ...         ctx.save_for_backward(*inputs)
        ...     @staticmethod
        ...     def backward(ctx, slope):
        ...         return -2 * ctx.saved_tensors[0] * slope
        >>> "jacobian_reverse" in check_derivatives(Wrong.apply, torch.tensor([0.5, 1.0])).wrong
        True

    Args:
        func: The function to check. Its arguments and its output are tensors or pytrees of tensors. It is called many
            times. Outputs that are not floating-point numbers are not checked.
        *primals: The arguments of `func` at which to check. All floating-point tensors among them are differentiated,
            and everything else is passed on unchanged.
        directions: The number of random directions to check if there are more inputs or outputs than this. A large
            network then takes no longer than a small one. None checks every entry.
        seed: The seed of the random directions.

    Returns:
        A `DerivativeReport`. `print(report)` shows the table. `report.ok` is True if some method is right and none is
        wrong, `report.right` and `report.wrong` are the names of the methods, and `report.advice` says what to do.

    Raises:
        TypeError: There is no floating-point tensor in the arguments or in the output, there is a complex one, or the
            output is not in float64.
        ValueError: `func` fails on float64 copies of its arguments, the arguments or the output are not finite, or
            `directions` is not positive.

    Method:
        Each derivative is compared with finite differences, entry by entry or along random directions. Differences see
        the whole function, so a part that is constant on purpose, by ``.detach()`` or ``no_grad()``, counts as an
        error. The differences are central and extrapolated, and the error of each is estimated. A method is called
        wrong only if other differences, or another method that is right, confirm it. The check uses copies of the
        tensors and, if `func` is a module, of the module.

    Cost:
        10 to 20 evaluations of `func` for each input or direction, at a kink many times more. As many evaluations of
        its Jacobian, and one run of each method. For a small network, this takes seconds.

    Source:
        D. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)" (1982). The random directions follow JAX's
        `check_grads`.
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
