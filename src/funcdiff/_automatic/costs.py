"""What each candidate would cost: the formulas of the guide, and the time they predict.

n inputs, m outputs, q = n (n + 1) / 2 pairs, over the counts of a `Sketch`: F FLOPs of one pass, S of a slope, D of a
bend, W wasted on zero tangents, E elements, c calls, g of them general; for Taylor rules, those that are nested.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from funcdiff._torch.tape import Sketch

Rates = tuple[float, float, float, float, float, float, float]


@dataclass(frozen=True)
class Cost:
    """Of one call: FLOPs of its matrix products, numbers it writes, numbers it returns, and predicted seconds.

    Of these `machinery` is what does not depend on sizes: the call, and its operations.
    """

    flops: int
    elements: int
    results: int
    seconds: float
    machinery: float


@dataclass(frozen=True)
class Formula:
    """A recipe's counts and its rates: seconds for a call, an operation, a general one, a FLOP, an element, a result.

    The last rate is of F again, as of a single function: its weights are read from memory, however many rows and
    directions they serve.

    NOTE [rates]. Fitted once to the times of some thousand random networks on one core of a common processor; for rows
    under vmap, where each operation starts later, apart; for a GPU, where large operations cost little more than small
    ones, by `nox -s gpu`. Only ratios decide between recipes, so the rates of another machine change little; they are
    constants, so that the choice is the same everywhere and at every call.
    """

    flops: Callable[[Sketch], int]
    elements: Callable[[Sketch], int]
    degree: int  # of the inputs in the result: m n, or m n^2
    together: Callable[[Sketch], int]  # the directions that travel at once, if not in chunks
    rates: Rates
    rates_of_rows: Rates
    gpu_rates: Rates
    gpu_rates_of_rows: Rates
    general: Callable[[Sketch], int] = lambda s: s.general

    def cost(self, s: Sketch, batch: int = 1) -> Cost:
        """The cost of a call, of `batch` such functions at once."""
        flops, elements = batch * self.flops(s), batch * self.elements(s)
        results = batch * s.outputs * s.inputs**self.degree
        return self._cost(1, s, flops, elements, results, self._rates(s, of_rows=batch != 1))

    def in_parts(self, s: Sketch, parts: int, flops: int) -> Cost:
        """The cost of a call in so many chunks, its FLOPs counted: some recipes start anew with each chunk."""
        whole = self.cost(s)
        return self._cost(parts, s, flops, whole.elements, whole.results, self._rates(s, of_rows=False))

    def _rates(self, s: Sketch, *, of_rows: bool) -> Rates:
        if s.on_gpu:
            return self.gpu_rates_of_rows if of_rows else self.gpu_rates
        return self.rates_of_rows if of_rows else self.rates

    def _cost(self, parts: int, s: Sketch, flops: int, elements: int, results: int, rates: Rates) -> Cost:
        amounts = parts, parts * s.calls, parts * self.general(s), flops, elements, results, parts * s.flops
        times = list(map(operator.mul, rates, amounts))
        return Cost(flops, elements, results, sum(times), sum(times[:3]))


def pairs(n: int) -> int:
    """The different second derivatives by n inputs."""
    return n * (n + 1) // 2


FORMULAS = {
    "jacobian_batched_grad": Formula(
        lambda s: s.flops + s.outputs * s.jvp_flops,
        lambda s: s.elements * (1 + s.outputs),
        1,
        lambda s: s.outputs,
        (9.0e-05, 1.1e-05, 2.0e-05, 6.0e-12, 7.5e-10, 3.9e-10, 2.0e-10),
        (4.3e-04, 2.6e-05, 1.1e-04, 6.5e-12, 2.0e-10, 4.0e-10, 3.3e-10),
        (4.2e-04, 3.3e-05, 9.5e-05, 2.0e-14, 2.5e-11, 5.5e-10, 1.1e-11),
        (1.0e-03, 4.4e-05, 1.5e-04, 2.0e-14, 3.0e-12, 0.0, 0.0),
    ),
    "jacobian_forward": Formula(
        lambda s: s.flops + s.wasted + s.inputs * s.jvp_flops,
        lambda s: s.elements * (1 + s.inputs),
        1,
        lambda s: s.inputs,
        (3.9e-04, 6.8e-05, 6.0e-04, 6.0e-12, 2.0e-09, 4.5e-10, 5.5e-10),
        (5.1e-04, 8.6e-05, 8.1e-04, 6.0e-12, 1.4e-09, 1.8e-10, 7.1e-10),
        (6.9e-04, 1.2e-04, 7.5e-04, 2.8e-13, 3.0e-12, 1.4e-09, 3.5e-11),
        (1.2e-03, 1.3e-04, 9.4e-04, 2.0e-14, 3.0e-12, 0.0, 2.7e-11),
    ),
    "jacobian_taylor": Formula(
        lambda s: s.flops + s.inputs * s.jvp_flops,
        lambda s: s.elements * (1 + s.inputs),
        1,
        lambda s: s.inputs,
        (1.6e-04, 2.6e-05, 2.9e-04, 6.0e-12, 8.7e-10, 3.6e-10, 2.5e-10),
        (3.2e-04, 3.6e-05, 3.2e-04, 6.0e-12, 3.6e-10, 1.1e-11, 4.0e-10),
        (4.6e-04, 5.7e-05, 1.5e-03, 3.6e-13, 3.0e-12, 2.4e-10, 3.1e-12),
        (9.2e-04, 5.9e-05, 1.8e-03, 2.0e-14, 3.0e-12, 0.0, 8.1e-12),
        general=lambda s: s.nested,
    ),
    "hessian_taylor": Formula(
        lambda s: s.flops + s.inputs * s.jvp_flops + pairs(s.inputs) * s.curved,
        lambda s: s.elements * (1 + s.inputs) + pairs(s.inputs) * s.curved_elements,
        2,
        lambda s: pairs(s.inputs),
        (2.4e-04, 4.0e-05, 7.3e-04, 6.0e-12, 2.1e-09, 6.3e-10, 3.1e-10),
        (3.6e-04, 5.9e-05, 8.8e-04, 6.0e-12, 1.5e-09, 1.0e-09, 4.2e-10),
        (6.6e-04, 7.1e-05, 3.6e-03, 2.0e-14, 1.0e-09, 9.6e-10, 5.9e-11),
        (9.0e-04, 8.0e-05, 4.9e-03, 5.8e-13, 3.0e-12, 1.4e-09, 8.3e-10),
        general=lambda s: s.nested,
    ),
    "hessian_forward_over_reverse": Formula(
        lambda s: (
            s.flops
            + s.outputs * s.jvp_flops
            + s.wasted * (1 + s.outputs)
            + s.inputs * (s.jvp_flops + s.outputs * s.second_flops)
        ),
        lambda s: s.elements * (1 + s.inputs) * (1 + s.outputs),
        2,
        lambda s: max(s.inputs, s.outputs),
        (7.1e-04, 1.2e-04, 2.4e-04, 7.5e-12, 1.3e-09, 1.6e-11, 1.0e-09),
        (9.1e-04, 1.4e-04, 2.8e-04, 6.9e-12, 1.5e-09, 2.8e-09, 9.7e-10),
        (1.4e-03, 2.4e-04, 2.6e-03, 2.0e-14, 3.0e-12, 8.2e-10, 2.3e-10),
        (1.5e-03, 2.9e-04, 3.3e-03, 2.0e-14, 3.0e-12, 4.0e-10, 4.6e-10),
    ),
    "hessian_forward_over_forward": Formula(
        lambda s: s.flops + s.wasted + s.inputs * (s.flops + s.wasted + s.jvp_flops + s.inputs * s.second_flops),
        lambda s: s.elements * (1 + s.inputs) ** 2,
        2,
        lambda s: s.inputs,
        (7.8e-04, 2.2e-04, 3.3e-04, 9.0e-12, 1.9e-09, 1.5e-10, 1.6e-09),
        (9.0e-04, 2.5e-04, 3.2e-04, 8.4e-12, 2.9e-09, 3.2e-09, 1.4e-09),
        (1.2e-03, 3.9e-04, 3.5e-03, 2.0e-14, 3.0e-12, 0.0, 4.8e-10),
        (2.1e-03, 3.9e-04, 4.7e-03, 2.0e-14, 3.0e-12, 0.0, 1.8e-09),
    ),
    "hessian_double_backward": Formula(
        lambda s: s.flops + s.outputs * s.jvp_flops + s.inputs * s.outputs * (s.jvp_flops + s.outputs * s.second_flops),
        lambda s: s.elements * (1 + s.outputs) * (1 + s.inputs * s.outputs),
        2,
        lambda s: s.inputs * s.outputs,
        (1.0e-04, 3.9e-05, 3.0e-05, 6.4e-12, 1.4e-09, 1.4e-09, 4.2e-10),
        (5.7e-04, 7.5e-05, 6.3e-05, 6.1e-12, 1.2e-09, 1.5e-09, 6.2e-10),
        (7.4e-04, 9.1e-05, 1.2e-03, 2.0e-14, 6.7e-12, 6.3e-11, 1.9e-11),
        (1.4e-03, 1.5e-04, 1.7e-03, 4.9e-14, 3.0e-12, 5.1e-11, 1.3e-10),
    ),
}
