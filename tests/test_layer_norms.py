"""A layer norm by Taylor rules, and what it counts where it is written as the operations that it consists of."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from custom_functions import Identity
from torch import nn

import funcdiff as fd
from funcdiff._safety.obstacles import Obstacles
from funcdiff.measure import count

WIDE = torch.linspace(-1, 2, 42).reshape(7, 6).sin()
ROW = WIDE[0]


class Normed(Identity):
    """A norm inside of code of the user's."""

    @staticmethod
    def forward(x):
        return F.layer_norm(x, (6,))


def moments(y):
    return F.layer_norm(y, (6,)).pow(3).sum()


SCRIPTED = torch.jit.script(nn.LayerNorm(6))
FUNCTIONS = {
    "a layer": (nn.LayerNorm(6), WIDE),
    "of one row": (nn.LayerNorm(6), ROW),
    "of two axes": (nn.LayerNorm((7, 6)), WIDE.expand(2, 7, 6)),
    "of no rows": (nn.LayerNorm(6), WIDE[:0]),
    "frozen": (nn.LayerNorm(6).requires_grad_(False), WIDE),
    "without parameters": (nn.LayerNorm(6, elementwise_affine=False), WIDE),
    "without a bias": (nn.LayerNorm(6, bias=False), WIDE),
    "after a bend": (lambda x: torch.layer_norm(x.tanh(), (6,)), WIDE),
    "in a network": (nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.ELU(), nn.Linear(6, 6), nn.LayerNorm(6)), ROW),
    "in a transformer": (nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).eval(), WIDE[None]),
    "under vmap": (torch.vmap(lambda y: F.layer_norm(y, (6,))), WIDE),
    "of doubles": (nn.LayerNorm(6).double(), WIDE.double()),
    "of halves": (nn.LayerNorm(6).bfloat16(), WIDE.bfloat16()),
    "beside a detached one": (lambda x: F.layer_norm(x.detach(), (6,)) * F.layer_norm(x, (6,)), WIDE),
    "of a constant": (lambda x: F.layer_norm(torch.ones(7, 6), (6,)) * x, ROW),
    "with a weight that moves": (lambda x: F.layer_norm(x, (6,), x[0]), WIDE),
    "with a weight alone that moves": (lambda x: F.layer_norm(WIDE, (6,), x), ROW),
    "with another norm": (lambda x: F.layer_norm(F.group_norm(x, 3), (6,)), WIDE),
    "differentiated inside": (torch.func.grad(moments), WIDE),
    "differentiated by autograd": (lambda x: torch.autograd.grad(moments(x), x, create_graph=True)[0], WIDE),
    "the operator itself": (lambda x: torch.native_layer_norm(x, (6,), None, None, 1e-5)[0], WIDE),
    "in a custom function": (lambda x: Normed.apply(x) * F.layer_norm(x, (6,)), WIDE),
    "scripted": (lambda x: SCRIPTED(x) + F.layer_norm(x, (6,)), WIDE),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_it_counts_in_parts_is_what_its_parts_count(name):
    func, x = FUNCTIONS[name]
    known, counted = Obstacles(func, [x], "error"), Obstacles(func, [x], "error")
    counted._sketches[False] = dataclasses.replace(counted.sketch(False), extra=None)
    assert known.sketch(True) == counted.sketch(True)


def test_the_parts_are_known_without_another_run():
    calls = []
    func = lambda x: calls.append(1) or FUNCTIONS["in a network"][0](x)  # noqa: E731  # counts its calls
    seen = Obstacles(func, [ROW], "error")
    assert seen.sketch(True).calls > seen.sketch(False).calls
    assert len(calls) == 1


@pytest.mark.parametrize(("norm", "most"), [(nn.LayerNorm(6), 60), (nn.RMSNorm(6), 52)])
def test_taylor_rules_of_a_norm_start_few_operations(norm, most):
    """Nested forward mode of its square and its root would start nineteen more."""
    assert count(fd.hessian_taylor(norm), ROW).operations <= most
