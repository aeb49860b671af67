"""Modules that become another: their layers, hooks, forward methods and parametrizations."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from becoming.two import becomes_another, distance, sine


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.activation = sine

    def forward(self, x):
        return self.activation(x)


@becomes_another
def activation_of_a_module():
    net = nn.Sequential(Layer())
    return net, lambda: setattr(net[0], "activation", distance)


@becomes_another
def layer_of_a_module():
    class Distance(nn.Module):
        def forward(self, x):
            return distance(x)

    net = nn.Sequential(nn.Sequential(nn.Tanh()))
    return net, lambda: net[0].__setitem__(0, Distance())


@becomes_another
def hook_of_a_module():
    net = nn.Sequential(nn.Tanh())
    return net, lambda: net[0].register_forward_hook(lambda module, args, output: distance(output))


@becomes_another
def hook_before_a_module():
    net = nn.Sequential(nn.Tanh())
    return net, lambda: net[0].register_forward_pre_hook(lambda module, args: distance(*args))


@becomes_another
def hook_of_all_modules():
    net = nn.Sequential(nn.Tanh())

    def hook(module, args, output):
        return distance(output) if module is net else output

    return net, lambda: nn.modules.module.register_module_forward_hook(hook)


@becomes_another
def forward_of_a_module():
    net = nn.Sequential(nn.Tanh())
    return net, lambda: setattr(net[0], "forward", distance)


@becomes_another
def forward_of_a_class():
    return nn.Sequential(nn.Tanhshrink()), lambda: setattr(nn.Tanhshrink, "forward", lambda self, x: distance(x))


@becomes_another
def parametrization():
    class Distance(nn.Module):
        def forward(self, weight):
            return torch.cdist(weight, weight)

    net = nn.Linear(2, 2, bias=False).double()

    def func(x):  # by the weight that the module makes of x
        return torch.func.functional_call(net, {name: x[:2] for name, _ in net.named_parameters()}, (x,))

    return func, lambda: parametrize.register_parametrization(net, "weight", Distance())
