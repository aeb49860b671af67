"""Surrogates: samples from the right box, training that repeats, and Jacobians that can be trained through."""

import pytest
import torch
from torch import nn

from funcdiff.problems import study_network, surface, surface_jacobian
from funcdiff.surrogates import jacobians, train, uniform

LOW, HIGH = [-2.0, -1.0], [2.0, 1.0]


def fresh():
    return study_network((2, 20, 20, 3), activation=nn.GELU)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_uniform_fills_its_box_and_leaves_the_global_state():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    x = uniform(4000, LOW, HIGH, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert x.shape == (4000, 2)
    assert ((x >= torch.tensor(LOW)) & (x <= torch.tensor(HIGH))).all()
    torch.testing.assert_close(x.mean(0), torch.zeros(2), atol=0.1, rtol=0)
    torch.testing.assert_close(x.std(0), torch.tensor([4.0, 2.0]) / 12**0.5, atol=0.05, rtol=0)


def test_uniform_follows_its_seed():
    assert torch.equal(uniform(5, LOW, HIGH, seed=1), uniform(5, LOW, HIGH, seed=1))
    assert not torch.equal(uniform(5, LOW, HIGH, seed=1), uniform(5, LOW, HIGH, seed=2))


def test_jacobians_of_a_linear_layer_are_its_weight():
    layer = nn.Linear(2, 3, dtype=torch.float64)
    x = torch.randn(4, 2, dtype=torch.float64)
    torch.testing.assert_close(jacobians(layer, x), layer.weight.expand(4, 3, 2))


def test_jacobians_can_be_trained_through():
    layer = nn.Linear(2, 3, dtype=torch.float64)
    jacobians(layer, torch.zeros(4, 2, dtype=torch.float64)).sum().backward()
    torch.testing.assert_close(layer.weight.grad, torch.full((3, 2), 4.0, dtype=torch.float64))


def test_training_finds_the_exact_least_squares_solution():
    x = uniform(30, [-1.0], [1.0])
    layer = nn.Linear(1, 1)
    curve = train(layer, x, 3 * x - 2, iterations=50)
    torch.testing.assert_close(layer.weight.item(), 3.0, atol=1e-4, rtol=0)
    torch.testing.assert_close(layer.bias.item(), -2.0, atol=1e-4, rtol=0)
    assert curve.training[-1] < 1e-8
    assert curve.iterations == (10, 20, 30, 40, 50)
    assert curve.held_out == ()


def test_slopes_pull_the_fit_to_themselves():
    # Values of 0 and slopes of 1 cannot both be had by w x: sum of squares over x = -1, 1 is least at w = 1/2.
    x = torch.tensor([[-1.0], [1.0]])
    layer = nn.Linear(1, 1, bias=False)
    train(layer, x, torch.zeros(2, 1), slopes=torch.ones(2, 1, 1), iterations=20)
    torch.testing.assert_close(layer.weight.item(), 0.5, atol=1e-5, rtol=0)


def test_decay_shrinks_by_the_known_factor():
    # (w - 1)^2 + decay w^2 is least at w = 1 / (1 + decay).
    layer = nn.Linear(1, 1, bias=False)
    train(layer, torch.ones(1, 1), torch.ones(1, 1), decay=3.0, iterations=20)
    torch.testing.assert_close(layer.weight.item(), 0.25, atol=1e-5, rtol=0)


def test_training_repeats_and_restores_the_threads():
    x = uniform(60, LOW, HIGH)
    threads = torch.get_num_threads()
    results = []
    for _ in range(2):
        network = fresh()
        curve = train(network, x, surface(x), held_out=(x[:9], surface(x[:9])), iterations=40)
        results.append((weights(network), curve))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert len(results[0][1].held_out) == 4
    assert torch.get_num_threads() == threads


def test_sobolev_training_improves_the_slopes():
    x, points = uniform(80, LOW, HIGH), uniform(500, LOW, HIGH, seed=9)
    errors = []
    for slopes in (None, surface_jacobian(x)):
        network = fresh()
        train(network, x, surface(x), slopes=slopes, iterations=150)
        errors.append((jacobians(network, points) - surface_jacobian(points)).square().mean().sqrt().item())
    assert errors[1] < errors[0] / 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": torch.zeros(4)}, r"expected y of shape \(4, 3\).*got \(4,\)"),
        ({"slopes": torch.zeros(4, 2, 3)}, r"expected slopes of shape \(4, 3, 2\).*got \(4, 2, 3\)"),
        ({"iterations": 0}, "iterations >= 1, got 0"),
    ],
)
def test_refusals_come_before_any_change(options, message):
    network = fresh()
    before = weights(network)
    with pytest.raises(ValueError, match=message):
        train(network, torch.zeros(4, 2), **{"y": torch.zeros(4, 3), **options})
    assert torch.equal(weights(network), before)
