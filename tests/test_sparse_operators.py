"""Patterns of torch's own operators; `python tests/pattern_soundness.py` looks at all of the database."""

import pytest
import torch
from pattern_soundness import missing, survey
from torch.testing._internal.common_methods_invocations import op_db

from funcdiff._sparse import rules

SOME = [
    "as_strided_scatter",
    "atan2",
    "baddbmm",
    "bmm",
    "cat",
    "cumsum",
    "diag_embed",
    "diff",
    "fft.rfft",
    "gather",
    "index_add",
    "index_copy",
    "index_put",
    "index_select",
    "linalg.inv",
    "linalg.solve",
    "logsumexp",
    "masked_scatter",
    "matmul",
    "max",
    "mv",
    "nn.functional.avg_pool2d",
    "nn.functional.conv1d",
    "nn.functional.conv_transpose2d",
    "nn.functional.embedding",
    "nn.functional.layer_norm",
    "nn.functional.max_pool2d",
    "nn.functional.max_unpool2d",
    "nn.functional.pad",
    "nn.functional.rrelu",
    "nn.functional.scaled_dot_product_attention",
    "prod",
    "repeat",
    "roll",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "select_scatter",
    "softmax",
    "sort",
    "squeeze",
    "std",
    "take_along_dim",
    "tensordot",
    "topk",
    "triu",
    "unfold",
    "var_mean",
    "view_as_complex",
    "where",
]
OPERATORS = [op for op in op_db if op.name in SOME]


@pytest.mark.filterwarnings("ignore")  # of samples that torch warns about, and of operators in their old forms
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: f"{op.name} {op.variant_test_name}".strip())
def test_a_pattern_contains_every_entry(op):
    outcomes, unsound, crashed, *_ = survey([op], 4)
    assert not unsound
    assert not crashed
    assert outcomes["sound"] + outcomes["beyond torch"] + outcomes["too large"]


def test_all_the_names_are_known():
    assert set(SOME) <= {op.name for op in op_db}


@pytest.mark.parametrize("name", ["roll", "mm", "sum", "cumsum", "index_put"])
def test_a_rule_that_returns_less_is_seen(monkeypatch, name):
    """The rule of an operation is replaced by one that takes each element to be a constant."""
    funcs = {
        "roll": lambda x: x.roll(1),
        "mm": lambda x: (x.reshape(2, 3) @ x.reshape(3, 2)).reshape(-1),
        "sum": lambda x: x.reshape(2, 3).sum(0),
        "cumsum": lambda x: x.cumsum(0),
        "index_put": lambda x: torch.zeros_like(x).index_put((torch.arange(6),), x, accumulate=True),
    }
    x = torch.linspace(1, 2, 6, dtype=torch.float64)
    assert missing(funcs[name], x)[0] == 0
    monkeypatch.setitem(rules.RULES, name, lambda known, operation, targets: [None] * len(targets))
    assert missing(funcs[name], x)[0] > 0
