"""The answers of *Which recipe?* as data: what to call for a need, when, and the recipe that the call chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from _tools.finder.answers import PREPARED, SPARSE
from _tools.finder.model import Question


class Answer(NamedTuple):
    """What to call for a need, and the recipe that it chooses; `asks` says for which of the finder's questions."""

    need: str
    call: str
    when: str
    recipe: str
    cost: str  # in reST
    tutorial: str
    asks: Callable[[Question], bool]

    @property
    def method(self) -> str:
        """What the function does, if it is a recipe itself and chooses none."""
        return METHODS.get(self.call.partition("(")[0], "")


def _asks(need: str, shape: Callable[[int, int], bool], *, rows: bool = False) -> Callable[[Question], bool]:
    """Questions about networks without a norm, by their inputs and outputs."""

    def asked(q: Question) -> bool:
        return q.need == need and (q.rows > 0) == rows and q.norm == "none" and shape(q.inputs, q.outputs)

    return asked


def _tiny(q: Question) -> bool:
    """Where a Hessian takes few operations by any recipe, so that the size of the layers decides."""
    return _asks("Hessian", lambda n, m: n <= 3 and m <= 3)(q)


def _large(q: Question) -> bool:
    """Where matrix products take the time."""
    return q.layers > 1 and q.width >= 1000


def _any(need: str) -> Callable[[Question], bool]:
    return lambda q: q.need == need


def _none(q: Question) -> bool:
    """The rows that the finder does not ask about."""
    return False


ANSWERS = [
    Answer(
        "a gradient",
        "torch.func.grad(f)(x)",
        "one output",
        "torch.func.grad",
        ":math:`2 F`",
        "jacobians/jacrev_against_jacfwd",
        lambda q: q.need == "Jacobian" and q.outputs == 1,
    ),
    Answer(
        "a Jacobian",
        "jacobian(f)(x)",
        "several outputs, m ≤ n",
        "jacobian_batched_grad",
        ":math:`(1 + m) F`",
        "jacobians/jacrev_against_jacfwd",
        _asks("Jacobian", lambda n, m: 1 < m <= n),
    ),
    Answer(
        "a Jacobian",
        "jacobian(f)(x)",
        "n < m ≤ 300, up to 64 units",
        "jacobian_batched_grad",
        ":math:`(1 + m) F`",
        "jacobians/jacrev_against_jacfwd",
        lambda q: _asks("Jacobian", lambda n, m: n < m <= 300)(q) and q.width <= 64,
    ),
    Answer(
        "a Jacobian",
        "jacobian(f)(x)",
        "m ≥ 50 and m ≥ 5 n, large layers",
        "jacobian_taylor",
        ":math:`(1 + n) F`",
        "jacobians/jacrev_against_jacfwd",
        lambda q: _asks("Jacobian", lambda n, m: m >= 50 and m >= 5 * n)(q) and _large(q),
    ),
    Answer(
        "a Jacobian",
        "jacobian(f)(x)",
        "m ≥ 1000 and m ≥ 3 n",
        "jacobian_taylor",
        ":math:`(1 + n) F`",
        "jacobians/jacrev_against_jacfwd",
        _asks("Jacobian", lambda n, m: m >= 1000 and m >= 3 * n),
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "n ≥ 5 and m ≥ 5 n",
        "hessian_taylor",
        "at most :math:`(1 + n + q) F`",
        "hessians/taylor_mode",
        _asks("Hessian", lambda n, m: n >= 5 and m >= 5 * n),
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "n ≤ 3 and m ≤ 3, large layers",
        "hessian_taylor",
        "at most :math:`(1 + n + q) F`",
        "hessians/taylor_mode",
        lambda q: _tiny(q) and _large(q),
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "n ≤ 3 and m ≤ 3, small layers",
        "hessian_double_backward",
        "at most :math:`(1 + m)(1 + m n) F`",
        "hessians/four_hessians",
        lambda q: _tiny(q) and q.width <= 128,
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "one output, 8 ≤ n ≤ 800",
        "hessian_double_backward",
        ":math:`2 (1 + n) F`",
        "hessians/four_hessians",
        _asks("Hessian", lambda n, m: m == 1 and 8 <= n <= 800),
    ),
    Answer(
        "a Hessian",
        "hessian(f)(x)",
        "several outputs, n ≥ 500 m",
        "hessian_forward_over_reverse",
        "at most :math:`(2 + n)(1 + m) F`",
        "hessians/four_hessians",
        _asks("Hessian", lambda n, m: m > 1 and n >= 500 * m),
    ),
    Answer(
        "a Hessian times v",
        "hvp(f, (x,), (v,))",
        "one vector",
        "hvp_double_backward",
        ":math:`4 F`",
        "products/hvp_four_ways",
        _any("Hessian-vector product"),
    ),
    Answer(
        "a Hessian times v",
        "hvp_operator(f, x)(v)",
        "many vectors at one point",
        "hvp_operator",
        ":math:`2 F`, and :math:`2 F` each",
        "products/many_vectors",
        _none,
    ),
    Answer(
        "a Hessian times v",
        "distributed.hvp_operator",
        "data on several machines",
        "hvp_operator",
        ":math:`6 F` each, and one sum",
        "distributed/right_product",
        _none,
    ),
    Answer(
        "a Hessian's diagonal",
        "hessian_diagonal(f)(x)",
        "any shape",
        "hessian_diagonal",
        "at most :math:`(1 + 2 n) F`",
        "uses/physics_informed",
        _any("Hessian diagonal"),
    ),
    Answer(
        "a Laplacian",
        "laplacian(f)(x)",
        "any shape",
        "laplacian",
        "at most :math:`(2 + n) F`",
        "uses/physics_informed",
        _any("Laplacian"),
    ),
    Answer(
        "a Jacobian for each row",
        "batch_jacobian(f)(X)",
        "several outputs, n ≥ 2 m, 128 or more units",
        "jacobian_reverse",
        ":math:`(1 + m) F` a row",
        "batches/per_row",
        lambda q: _asks("Jacobian", lambda n, m: n >= 2 * m > 2, rows=True)(q) and q.width >= 128,
    ),
    Answer(
        "a Jacobian for each row",
        "batch_jacobian(f)(X)",
        "m ≥ 3 n, 64 or more units",
        "jacobian_taylor",
        ":math:`(1 + n) F` a row",
        "batches/per_row",
        lambda q: _asks("Jacobian", lambda n, m: m >= 3 * n, rows=True)(q) and q.width >= 64,
    ),
    Answer(
        "a Hessian for each row",
        "batch_hessian(f)(X)",
        "m ≥ n",
        "hessian_taylor",
        "at most :math:`(1 + n + q) F` a row",
        "batches/per_row",
        _asks("Hessian", lambda n, m: m >= n, rows=True),
    ),
    Answer(
        "a Hessian for each row",
        "batch_hessian(f)(X)",
        "one output, n ≤ 2",
        "hessian_taylor",
        "at most :math:`(1 + n + q) F` a row",
        "batches/per_row",
        _asks("Hessian", lambda n, m: m == 1 and n <= 2, rows=True),
    ),
    Answer(
        "a Hessian for each row",
        "batch_hessian(f)(X)",
        "one output, 8 ≤ n < 20, 128 or more units",
        "hessian_reverse_over_reverse",
        ":math:`2 (1 + n) F` a row",
        "batches/per_row",
        lambda q: _asks("Hessian", lambda n, m: m == 1 and n >= 8, rows=True)(q) and q.width >= 128,
    ),
    Answer(
        "a Hessian for each row",
        "batch_hessian(f)(X)",
        "one output, n ≥ 20",
        "hessian_reverse_over_reverse",
        ":math:`2 (1 + n) F` a row",
        "batches/per_row",
        _asks("Hessian", lambda n, m: m == 1 and n >= 20, rows=True),
    ),
    *(
        Answer(
            f"a sparse {need}",
            f"{call}(f)(x)",
            when,
            call,
            cost,
            "sparse/passes",
            _none,
        )
        for (need, call), when, cost in zip(
            SPARSE.items(),
            ("few inputs in each output", "few inputs in each term of a sum"),
            (r":math:`(1 + \text{passes}) F`", r":math:`(2 + 2\,\text{passes}) F`"),
            strict=True,
        )
    ),
    Answer(
        "any of these, many times",
        f"{PREPARED}(jacobian(f), x)",
        "a small function",
        PREPARED,
        "its operations alone",
        "measuring/prepared",
        _none,
    ),
]

# What the functions do that are the only recipe for their answer, by the call's name.
METHODS = {
    "torch.func.grad": "reverse mode",
    "hvp_operator": "keeps the gradient's graph",
    "distributed.hvp_operator": "adds up over the machines",
    "hessian_diagonal": "Taylor mode",
    "laplacian": "Taylor mode",
    "jacobian_sparse": "columns or rows share passes",
    "hessian_sparse": "columns share passes",
    "prepare": "records the operations once",
}
