import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

import funcdiff as fd
from funcdiff._torch.processes import without_hooks
from funcdiff.problems import study_network, two_layers

X = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def test_jacobian_by_the_parameters_of_a_two_layer_network():
    module = network()
    func, parameters = fd.module_function(module)
    t = torch.tanh(parameters["0.weight"] @ X + parameters["0.bias"])
    by_hidden = parameters["2.weight"] * (1 - t**2)
    want = {
        "0.weight": torch.einsum("ih,k->ihk", by_hidden, X),
        "0.bias": by_hidden,
        "2.weight": torch.einsum("ij,h->ijh", torch.eye(2, dtype=X.dtype), t),
        "2.bias": torch.eye(2, dtype=X.dtype),
    }
    for recipe in (fd.jacobian_loop, fd.jacobian_batched_grad, fd.jacobian_reverse, fd.jacobian_forward):
        assert_close(recipe(func)(parameters, X), want)
    assert_close(func(parameters, X), module(X).detach())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())


def test_a_network_has_the_derivatives_of_the_same_network_by_hand():
    module = network()
    inner, outer = module[0], module[2]
    by_hand = two_layers(inner.weight.detach(), inner.bias.detach(), outer.weight.detach())
    func, parameters = fd.module_function(module)
    assert_close(fd.jacobian_reverse(func, argnums=1)(parameters, X), by_hand.jacobian(X))
    assert_close(fd.hessian_forward_over_reverse(func, argnums=1)(parameters, X), by_hand.hessian(X))


def test_frozen_parameters_are_differentiated_too():
    module = network()
    module[0].weight.requires_grad_(False)
    func, parameters = fd.module_function(module)
    frozen = fd.jacobian_reverse(func)(parameters, X)
    func, parameters = fd.module_function(network())
    assert_close(frozen, fd.jacobian_reverse(func)(parameters, X))


def test_several_inputs_and_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(1, 1, bias=False).double()
            self.second = self.first

        def forward(self, x, y):
            return self.second(self.first(x)) + y

    module = Tied()
    func, parameters = fd.module_function(module)
    weight = parameters["first.weight"]
    jacobian = fd.jacobian_forward(func)(parameters, X[:1], X[1:2])
    assert_close(jacobian, {"first.weight": (2 * weight * X[0])[None]})


def test_one_matrix_by_ravel():
    func, parameters = fd.module_function(network())
    vector, unravel = fd.ravel(parameters)
    matrix = fd.jacobian_reverse(lambda v: func(unravel(v), X))(vector)
    blocks = fd.jacobian_reverse(func)(parameters, X)
    assert_close(matrix, torch.cat([block.reshape(2, -1) for block in blocks.values()], 1))
    hessian = fd.hessian_forward_over_reverse(lambda v: func(unravel(v), X).square().sum())(vector)
    assert hessian.shape == (26, 26)
    assert_close(hessian, hessian.T)


def test_ravel_and_back():
    tree = {"a": torch.arange(6.0).reshape(3, 2).T, "b": (torch.tensor(7.0), torch.ones(0))}
    vector, unravel = fd.ravel(tree)
    assert_close(vector, torch.tensor([0.0, 2, 4, 1, 3, 5, 7]))
    assert_close(unravel(vector), tree)
    assert_close(torch.func.vmap(lambda v: unravel(v)["a"])(vector.expand(2, 7)), tree["a"].expand(2, 2, 3))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.5),
        nn.Dropout2d(0.1),
        nn.AlphaDropout(0.2),
        nn.RReLU(),
        nn.BatchNorm1d(3),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.MultiheadAttention(4, 2, dropout=0.1),
        nn.LSTM(2, 2, num_layers=2, dropout=0.1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_with_another_function_in_training_are_refused_in_training_only(layer):
    layer = copy.deepcopy(layer)  # its mode is changed below
    module = nn.ModuleDict({"inner": layer})
    with pytest.raises(ValueError, match=f"{type(layer).__name__} 'inner"):
        fd.module_function(module)
    fd.module_function(module, training=True)
    fd.module_function(module.eval())
    module.train()
    layer.eval()
    fd.module_function(module)


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.0), nn.ReLU(), nn.LayerNorm(3), nn.MultiheadAttention(4, 2), nn.LSTM(2, 2)]
)
def test_layers_without_a_training_mode_of_their_own_are_taken_in_training(layer):
    assert layer.training
    fd.module_function(layer)


def test_batch_norm_in_training_leaves_the_running_statistics_alone():
    rows = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(4, 3) ** 2
    module = nn.BatchNorm1d(3).double()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    func, parameters = fd.module_function(module, training=True)
    normal = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + module.eps).sqrt()
    jacobian = fd.jacobian_reverse(func)(parameters, rows)
    assert_close(jacobian["weight"], torch.diag_embed(normal))
    assert_close(dict(module.named_buffers()), before)


def test_the_automatic_recipes_know_that_running_statistics_are_copies():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Tanh()).double()
    rows = torch.randn(4, 3, dtype=torch.float64)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    func, parameters = fd.module_function(module, training=True)

    def loss(parameters, rows=rows):
        return func(parameters, rows).square().sum()

    assert_close(fd.jacobian(func)(parameters, rows), fd.jacobian_loop(func)(parameters, rows))
    plain = torch.autograd.functional.hessian(lambda w: loss({**parameters, "0.weight": w}), parameters["0.weight"])
    assert_close(fd.hessian(loss)(parameters)["0.weight"]["0.weight"], plain)
    assert_close(fd.hessian_taylor(loss)(parameters)["0.weight"]["0.weight"], plain)
    assert_close(fd.hvp(loss, (parameters,), (parameters,)), fd.hvp_operator(loss, parameters)(parameters))
    two = torch.stack([rows, 2 * rows])
    expected = fd.jacobian_loop(func)(parameters, two[1])["1.weight"]
    assert_close(fd.batch_jacobian(func, in_dims=(None, 0))(parameters, two)["1.weight"][1], expected)
    assert_close(dict(module.named_buffers()), before)
    with pytest.raises(RuntimeError, match="running statistics"):
        fd.jacobian(module)(rows)
    assert_close(dict(module.named_buffers()), before)


def test_study_network_repeats_and_leaves_the_random_state():
    torch.manual_seed(1)
    following = torch.rand(3)
    torch.manual_seed(1)
    one, same, other = study_network((2, 3, 1)), study_network((2, 3, 1)), study_network((2, 3, 1), seed=1)
    assert torch.rand(3).equal(following)
    assert_close(one.state_dict(), same.state_dict())
    assert not one[0].weight.equal(other[0].weight)
    assert [type(layer).__name__ for layer in one] == ["Linear", "ELU", "Linear"]
    assert not one.training
    assert study_network((2, 3), dtype=torch.float64)[0].weight.dtype == torch.float64
    assert [tuple(p.shape) for p in study_network().parameters()][::2] == [(1000, 5), (1000, 1000), (25, 1000)]


def test_a_copy_without_hooks_shares_what_the_module_shares():
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, nn.BatchNorm1d(2), layer).eval()
    net.register_forward_hook(lambda module, inputs, output: 2 * output)
    bare = without_hooks(net)
    assert bare[0] is bare[2]
    assert bare[0] is not layer
    assert bare[1].running_mean is net[1].running_mean
    x = torch.randn(3, 2)
    assert_close(bare(x), net(x))  # the user's own hook is kept
    twice = {name: 2 * value for name, value in net.named_parameters()}
    assert_close(functional_call(bare, twice, x), functional_call(net, twice, x))
