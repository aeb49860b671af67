"""What torch differentiates twice wrong, or not at all: right in every recipe, alone, in a batch and once more."""

import math

import pytest
import torch
import torch.nn.functional as F
from second_order import check, differences, slope
from test_jets_linear_algebra import FUNCTIONS, ROWS, of_a_matrix
from torch import nn
from torch.func import functional_call, vmap
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._safety.guard import REWRITTEN, corrected
from funcdiff._torch.tape import sketch

# A plan's first look runs func as it is: on the fast path, with its warning.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
torch.manual_seed(0)
BASE, WAYS = torch.randn(2, 3, 4, dtype=torch.float64).unbind()[0], torch.randn(3, 3, 4, dtype=torch.float64)
TARGET, SECOND = torch.randn(2, 3, 4, dtype=torch.float64).unbind()
MASK = torch.tensor([[True, False, True], [True, True, False], [False, False, False]])
ADDED = torch.randn(3, 3, dtype=torch.float64).masked_fill(~MASK, -math.inf)
PADDING = torch.tensor([[False, False, True]])
LABELS = torch.tensor([0, 3, 3])
INDICES = torch.tensor([[0, 2], [2, 1]])


def frozen(module):
    return module.double().eval().requires_grad_(False)


ATTENTION = frozen(nn.MultiheadAttention(4, 2, batch_first=True))
LAYER = frozen(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True))
STACK = frozen(nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=False), 1))
NORMED = frozen(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))


def attend(x, **options):
    return F.scaled_dot_product_attention(x[None], 2 * x[None], x[None].sin(), **options)


def heads(x):
    query, key = torch.stack([x, x * 2, x.sin(), x.cos()]), torch.stack([x, x / 2])
    return F.scaled_dot_product_attention(query, key, key.cos(), enable_gqa=True)


def with_weight_norm(x):
    names = "parametrizations.weight.original1", "parametrizations.weight.original0"
    return functional_call(NORMED, dict(zip(names, (x[:2], x[2:, :2].mT.sin()), strict=True)), (TARGET[0],))


def signs(x):
    return F.soft_margin_loss(x, TARGET.sign())


FORMS = {
    "attention": attend,
    "attention with a mask": lambda x: attend(x, attn_mask=MASK),
    "attention with a number added": lambda x: attend(x, attn_mask=ADDED, scale=0.3),
    "causal attention": lambda x: attend(x, is_causal=True),
    "grouped attention": heads,
    "MultiheadAttention": lambda x: ATTENTION(x[None], x[None], x[None], need_weights=False)[0],
    "MultiheadAttention with padding": lambda x: ATTENTION(x[None], x[None], x[None], key_padding_mask=PADDING)[0],
    "TransformerEncoderLayer": lambda x: LAYER(x[None]),
    "TransformerEncoder with padding": lambda x: STACK(x[None], src_key_padding_mask=PADDING)[:, :2],
    "embedding with padding": lambda x: F.embedding(INDICES, x, padding_idx=1),
    "cdist": lambda x: torch.cdist(x, x.sin() + 0.1),
    "cdist of points with themselves": lambda x: torch.cdist(x[None], x[None] * 1),
    "cdist, p=1": lambda x: torch.cdist(x, SECOND, p=1),
    "cdist, p=3": lambda x: torch.cdist(x, SECOND, p=3),
    "cdist, p=inf": lambda x: torch.cdist(x, SECOND, p=math.inf),
    "pdist": lambda x: F.pdist(x),
    "pairwise_distance": lambda x: F.pairwise_distance(x, x.sin(), keepdim=True),
    "weight_norm": lambda x: torch._weight_norm(x, x[:1].sin() + 2, 1),
    "parametrized weight_norm": with_weight_norm,
    "rrelu": lambda x: nn.RReLU(0.2, 0.4).eval()(x),
    "mse_loss": lambda x: F.mse_loss(x.sin(), TARGET),
    "mse_loss, weighted": lambda x: F.mse_loss(x.sin(), TARGET, weight=SECOND.abs()),
    "mse_loss, summed": lambda x: nn.MSELoss(reduction="sum")(x.sin(), x.cos()),
    "soft_margin_loss": signs,
    "multi_margin_loss": lambda x: F.multi_margin_loss(x.sin(), LABELS, p=2, margin=0.7, weight=SECOND[0].abs()),
    "multi_margin_loss, one row": lambda x: F.multi_margin_loss(x[0].square(), LABELS[1], reduction="sum"),
    "select_scatter": lambda x: torch.select_scatter(x.sin(), x[:, 0].cos() * 2, 1, -2),
    "select_scatter, the first axis": lambda x: torch.select_scatter(SECOND, x[1].square(), 0, 1) * x,
    "prelu": lambda x: F.prelu(x, x[0, 0].cos()[None]),
    "prelu, a weight a channel": lambda x: F.prelu(x[None].mT, x[0].sin()),
    "as_strided": lambda x: (x @ x.mT).as_strided((2, 3), (3, 1), 1),
    "layer_norm": lambda x: F.layer_norm(x, (4,), x[0], x[1]),
}


def scalar(name):
    return lambda t: FORMS[name](BASE + torch.tensordot(t + t.square() / 2, WAYS, 1)).sin().sum()


@pytest.mark.parametrize("name", FORMS)
def test_against_differences(name):
    check(scalar(name), ROWS)


@pytest.mark.parametrize("name", FORMS)
def test_values(name):
    assert_close(corrected(scalar(name))(ROWS[0]), scalar(name)(ROWS[0]))


FORMS["embedding"] = lambda x: F.embedding(INDICES, x)
SIMPLE = {
    "embedding",
    "MultiheadAttention with padding",
    "pairwise_distance",
    "mse_loss, weighted",
}  # as torch has them


@pytest.mark.parametrize("name", sorted(set(FORMS) - SIMPLE))
def test_planning_knows_that_the_operators_are_others(name):
    assert sketch(scalar(name), [ROWS[0].clone()]).operators & REWRITTEN


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "triangular" not in name and "cholesky" not in name])
def test_planning_knows_those_of_linear_algebra(name):
    if "Gaussian" not in name:
        assert sketch(of_a_matrix(FUNCTIONS[name]), [ROWS[0].clone()]).operators & REWRITTEN


def test_complex_powers():
    def func(x):
        y = 1 + x.square()
        return (
            (y ** (1.3 + 0.4j)).abs().sum() + y.pow(torch.tensor(0.2 + 0.1j)).real.sum() + (2.0 ** (y * 1j)).real.sum()
        )

    check(func, ROWS, once_more=())


def test_coinciding_points_have_no_slope():
    x = torch.zeros(2, 3, dtype=torch.float64)
    x[1] = 1
    for func in (lambda x: torch.cdist(x, x * 1), F.pdist, lambda x: torch.cdist(x, x * 1, p=1.5)):
        assert fd.jacobian(func)(x).isfinite().all()
        assert fd.hessian(func)(x).isfinite().all()
    assert torch.equal(fd.hessian(lambda x: torch.cdist(x[:1], x[:1] * 1))(x), torch.zeros(1, 1, 2, 3, 2, 3).double())


def test_queries_that_see_nothing_give_zeros():
    x = BASE.clone()
    hidden = torch.zeros(3, 3, dtype=torch.bool)
    for mask in (hidden, torch.zeros(3, 3).double().masked_fill(~hidden, -math.inf)):
        assert torch.equal(corrected(lambda x, mask=mask: attend(x, attn_mask=mask))(x), torch.zeros(1, 3, 4).double())
        assert fd.hvp(lambda x, mask=mask: attend(x, attn_mask=mask).square().sum(), (x,), (x,)).eq(0).all()


def test_a_layer_that_draws_stays_refused():
    with pytest.raises(RuntimeError, match="random"):
        fd.hessian(lambda x: F.rrelu(x, training=True).sum())(BASE)


def test_a_product_through_a_norm_can_be_trained():
    # with nothing to train the product is plain autograd's own; else that of a composition, whose derivative is right
    net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5, elementwise_affine=False), nn.Tanh(), nn.Linear(5, 1)).double()
    names = [name for name, _ in net.named_parameters()]

    def total(vector, product):
        parts = vector.split([p.numel() for p in net.parameters()])
        weights = {n: part.view_as(p) for n, part, p in zip(names, parts, net.parameters(), strict=True)}
        return product(lambda x: functional_call(net, weights, (x,)).square().sum(), (BASE,), (TARGET,)).sum()

    vector = torch.cat([p.detach().flatten() for p in net.parameters()])
    expected = differences(lambda vector: total(vector, fd.hvp_reverse_over_reverse), vector)
    assert_close(slope(lambda vector: total(vector, fd.hvp))(vector), expected, rtol=1e-6, atol=1e-7)


def test_inside_vmap_a_whole_transformer():
    rows = torch.stack([BASE, TARGET])
    func = lambda x: STACK(x[None], src_key_padding_mask=PADDING)[:, :2].square().sum()  # noqa: E731  # twice
    expected = torch.stack([differences(slope(func), x) for x in rows])
    assert_close(vmap(fd.hessian(func))(rows).reshape(expected.shape), expected, rtol=1e-6, atol=1e-7)
