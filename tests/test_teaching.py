"""What the automatic recipes say about functions that cannot be differentiated."""

import functools
from dataclasses import dataclass

import pytest
import torch
from custom_functions import Forgetful
from torch import Tensor, nn
from torch.func import vmap

import funcdiff as fd

X = torch.tensor([0.5, 0.2, 0.4])
ROWS = torch.stack([X, X + 1])
AUTOMATIC = {
    "jacobian": lambda func: fd.jacobian(func)(X),
    "hessian": lambda func: fd.hessian(func)(X),
    "hessian_taylor": lambda func: fd.hessian_taylor(func)(X),
    "hessian_diagonal": lambda func: fd.hessian_diagonal(func)(X),
    "laplacian": lambda func: fd.laplacian(func)(X),
    "hvp": lambda func: fd.hvp(func, (X,), (X,)),
    "hvp_operator": lambda func: fd.hvp_operator(func, X),
    "batch_jacobian": lambda func: fd.batch_jacobian(func)(ROWS),
    "batch_hessian": lambda func: fd.batch_hessian(func)(ROWS),
    "batch_jacobian_summed": lambda func: fd.batch_jacobian_summed(func)(ROWS),
    "batch_hessian_summed": lambda func: fd.batch_hessian_summed(func)(ROWS),
}


@dataclass
class Output:
    value: Tensor


OUTPUTS = {
    "None": lambda x: (x, None),
    "a number": lambda x: 1.0,
    "a number beside a tensor": lambda x: (x, 3.0),
    "a dataclass": Output,
    "sparse": lambda x: x.to_sparse(),
    "nothing": lambda x: (),
    "a mask": lambda x: x > 0,
}


@pytest.mark.parametrize("name", AUTOMATIC)
@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_that_are_no_tensors(name, output):
    with pytest.raises(TypeError, match=r"expected .* output of func"):
        AUTOMATIC[name](OUTPUTS[output])


@pytest.mark.parametrize("name", AUTOMATIC)
@pytest.mark.parametrize("inside", [False, True])
def test_a_lazy_module_is_left_as_it_was(name, inside):
    net = nn.Sequential(nn.LazyLinear(4), nn.Tanh())
    with pytest.raises(RuntimeError, match="call it once before"):
        AUTOMATIC[name]((lambda x: net(x).sum()) if inside else net)
    assert isinstance(net[0].weight, nn.UninitializedParameter)


@pytest.mark.parametrize("inside", [False, True])
def test_a_recipe_by_name_refuses_a_lazy_module_before_torch_ends_the_process(inside):
    net = nn.Sequential(nn.LazyLinear(4), nn.Tanh())
    func = (lambda x: net(x).sum()) if inside else net
    for call in (
        lambda: fd.jacobian_reverse(func)(X),
        lambda: fd.jacobian_forward(functools.partial(func))(X),
        lambda: fd.hvp_forward_over_reverse(func, (X,), (X,)),
    ):
        with pytest.raises(RuntimeError, match="call it once before"):
            call()
    assert isinstance(net[0].weight, nn.UninitializedParameter)


def test_a_lazy_module_as_a_function_of_its_parameters():
    with pytest.raises(ValueError, match="call it once before"):
        fd.module_function(nn.LazyLinear(4))


@pytest.mark.parametrize("name", ["jacobian", "hessian", "batch_jacobian", "batch_hessian"])
def test_a_failed_allocation_names_what_to_change_and_is_no_reason_to_try_on(name):
    calls = []

    def func(x):
        calls.append(1)
        return x.sin() if name.endswith("jacobian") else x.sin().sum()

    large = torch.zeros(3_000_000)
    with pytest.raises(RuntimeError, match=r"Pass chunk_size=.* with budget="):
        getattr(fd, name)(func, verify=False)(large[None] if "batch" in name else large)
    assert len(calls) <= 3  # to plan, to look for Taylor rules, and once


def test_detach_is_advised_where_it_is_a_way_out():
    with pytest.raises(RuntimeError, match=r"call \.detach\(\) first") as refusal:
        fd.jacobian(lambda x: x * float(x.sum()))(X)
    fd.jacobian(lambda x: x * float(x.detach().sum()))(X)
    with pytest.raises(RuntimeError, match=r"not even after \.detach\(\)") as refusal:
        vmap(fd.jacobian(lambda x: x * float(x.detach().sum())))(ROWS)
    assert "first if" not in str(refusal.value)


def test_a_branch_under_vmap_is_told_both_ways_out():
    with pytest.raises(RuntimeError, match=r"torch\.where\. For a branch, .* use .* batch_jacobian"):
        vmap(fd.jacobian(lambda x: x if x.sum() > 0 else x**2))(ROWS)


def test_no_message_advises_a_recipe_that_the_plan_calls_wrong():
    with pytest.raises(RuntimeError, match="contradicts differences") as refusal:
        fd.hvp(lambda x: Forgetful.apply(x).sum(), (X.double(),), (X.double(),))
    assert "use plain autograd" not in str(refusal.value)


def test_the_fast_path_of_a_transformer_names_its_switch():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    encoder, mask = nn.TransformerEncoder(layer, 1).eval(), torch.tensor([[False, False, True]])
    func, rows = lambda x: encoder(x, src_key_padding_mask=mask), torch.rand(2, 1, 3, 4)
    with pytest.raises(RuntimeError, match="enable_nested_tensor=False"):
        fd.batch_jacobian(func, jacobian=fd.jacobian_reverse)(rows)
    assert fd.batch_jacobian(func)(rows).shape == (2, 1, 3, 4, 1, 3, 4)


def test_a_frozen_transformer_with_a_padding_mask_has_a_hessian():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).double().eval().requires_grad_(False)
    mask, x = torch.tensor([[False, True]]), torch.rand(1, 2, 4, dtype=torch.float64)

    def func(x):
        return encoder(x, src_key_padding_mask=mask)[:, 0].pow(3).sum()

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.autograd.functional.hessian(func, x)
    torch.testing.assert_close(fd.hessian(func)(x), expected)
