r"""
How do I take a Jacobian with respect to weights and biases?
============================================================

A network has more parameters than anything else, so its parameter Jacobian is the widest and the largest to write. Its
parameters sit inside a module, where no transform sees them: ask for a derivative there, and the answer is zero.

**Answer:** make them arguments: :func:`funcdiff.module_function`. Then :func:`funcdiff.jacobian_reverse`, by name or,
with :func:`funcdiff.ravel`, as one matrix. Before you do, ask whether the Jacobian must be written at all.
"""

# %%
# The function
# ------------
# One layer, :math:`f(x) = \tanh(Wx + b)`, with its weight and bias as arguments.

import torch
from torch.nn.functional import linear

device = "cuda" if torch.cuda.is_available() else "cpu"


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


def layer(inputs, outputs):
    return tuple(torch.randn(shape, device=device) for shape in [(outputs, inputs), (outputs,), (inputs,)])


# %%
# By hand
# -------
# Output :math:`i` sees row :math:`i` of the weight and entry :math:`i` of the bias, and no other:
#
# .. math::
#
#     \frac{\partial f_i}{\partial W_{jk}} = (1 - f_i^2)\, \delta_{ij}\, x_k, \qquad
#     \frac{\partial f_i}{\partial b_j} = (1 - f_i^2)\, \delta_{ij}.


def by_formula(weight, bias, x):
    slopes = torch.diag(1 - predict(weight, bias, x) ** 2)
    return slopes[:, :, None] * x, slopes


# %%
# The recipes
# -----------
# ``argnums=(0, 1)`` differentiates with respect to the first two arguments and returns a tuple: of the output's shape,
# then the argument's.

from funcdiff import jacobian_forward, jacobian_reverse, module_function, ravel

args = layer(16, 16)
jacobians = jacobian_reverse(predict, argnums=(0, 1))(*args)
torch.testing.assert_close(jacobians, by_formula(*args))
torch.testing.assert_close(jacobian_forward(predict, argnums=(0, 1))(*args), by_formula(*args))
print([tuple(jacobian.shape) for jacobian in jacobians])

# %%
# A module
# --------
# ``module_function`` returns a function and the parameters by name. They go in as its first argument, a dictionary, and
# the Jacobian comes out as one.

network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).to(device)
func, parameters = module_function(network)
x = torch.randn(3, device=device)

blocks = jacobian_reverse(func)(parameters, x)
for name, block in blocks.items():
    print(f"{name:10} {tuple(block.shape)}")

# %%
# With :math:`t = \tanh(W x + b)` and the outer weight :math:`V`, each block has its formula.

V = parameters["2.weight"]
t = torch.tanh(linear(x, parameters["0.weight"], parameters["0.bias"]))
slope = V * (1 - t**2)
identity = torch.eye(2, device=device)
expected = {
    "0.weight": slope[:, :, None] * x,
    "0.bias": slope,
    "2.weight": identity[:, :, None] * t,
    "2.bias": identity,
}
torch.testing.assert_close(blocks, expected)

# %%
# One matrix
# ----------
# ``ravel`` lays all parameters out as one vector, in the order of their names above, and the blocks become one matrix:
# a row an output, a column a parameter. That is what a Gauss-Newton step or a Laplace approximation asks for.

vector, unravel = ravel(parameters)
matrix = jacobian_reverse(lambda vector: func(unravel(vector), x))(vector)
torch.testing.assert_close(matrix, torch.cat([block.flatten(1) for block in blocks.values()], dim=1))
print(tuple(matrix.shape))

# %%
# Prediction
# ----------
# A layer of :math:`M` outputs and :math:`N` inputs has :math:`MN + M` parameters: reverse mode makes :math:`M` passes,
# forward mode :math:`MN + M`. Two affine layers of equal size, :math:`MN = 16384`, counted on torch's *meta* device,
# where nothing is computed. First :math:`M = 1024`:

from funcdiff.measure import compare, count
from funcdiff.plots import plot

recipes = {
    "jacobian_reverse": jacobian_reverse(lambda weight, bias, x: linear(x, weight, bias), argnums=(0, 1)),
    "jacobian_forward": jacobian_forward(lambda weight, bias, x: linear(x, weight, bias), argnums=(0, 1)),
}
many, few = layer(16, 1024), layer(1024, 16)

many_costs = count(recipes, *(tensor.to("meta") for tensor in many))
many_costs

# %%
# and :math:`M = 16`:

few_costs = count(recipes, *(tensor.to("meta") for tensor in few))
few_costs

# %%
few_costs.claim("jacobian_reverse", fewer_flops_than="jacobian_forward", by=500)

# %%
# The shape of the layer decides, not its number of parameters: with 1024 outputs reverse mode, too, must write
# :math:`M \times MN` numbers.

many_costs.claim("jacobian_reverse", smaller_peak_than="jacobian_forward", by=10)

# %%
# Measurement
# -----------
# Forward mode takes its columns 1024 at a time here, so that it fits into a small machine's memory.

recipes["jacobian_forward"] = jacobian_forward(
    lambda weight, bias, x: linear(x, weight, bias), argnums=(0, 1), chunk_size=1024
)
few_times = compare(recipes, *few, rounds=9, budget=0.05)
few_times

# %%
few_times.claim("jacobian_reverse", faster_than="jacobian_forward", by=10)

# %%
plot(few_times, title="By the weight and bias of 16 outputs: 16 passes in reverse, 16400 in forward mode")

# %%
many_times = compare(recipes, *many, rounds=9, budget=0.5)
many_times

# %%
many_times.claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# For the bias alone there are :math:`M` inputs and :math:`M` outputs, and the modes make equally many passes:

bias_alone = {
    "jacobian_reverse": jacobian_reverse(lambda weight, bias, x: linear(x, weight, bias), argnums=1),
    "jacobian_forward": jacobian_forward(lambda weight, bias, x: linear(x, weight, bias), argnums=1),
}
compare(bias_alone, *few, rounds=9).claim("jacobian_reverse", faster_than="jacobian_forward")

# %%
# What the matrix says
# --------------------
# :math:`\partial f_i / \partial W_{jk} = \delta_{ij}\, x_k`: all that the large one holds is the input, and zeros.

jacobian, _ = recipes["jacobian_reverse"](*many)
weight, bias, x = many
torch.testing.assert_close(jacobian, torch.eye(1024, device=device)[:, :, None] * x)
print(f"{jacobian.nbytes} bytes written, {x.nbytes} bytes needed: {jacobian.nbytes // x.nbytes} times as many")

# %%
# If you need only its product with a vector, one pass suffices. For a change :math:`V` of the weight it is
# :math:`V x`:

from torch.func import jvp

change = torch.randn_like(weight)
ways = {
    "jvp": lambda change: jvp(lambda weight: linear(x, weight, bias), (weight,), (change,))[1],
    "jacobian, then product": lambda change: torch.tensordot(recipes["jacobian_reverse"](*many)[0], change, 2),
}
torch.testing.assert_close(ways["jvp"](change), change @ x)
count(ways, change).claim("jvp", smaller_peak_than="jacobian, then product", by=100)

# %%
# What breaks
# -----------
# A transform differentiates with respect to the arguments. Here the argument is there, but the module captured in the
# function computes with its own weight: the derivative is zero, and nothing is raised.

weight = network[0].weight.detach()
x = torch.randn(3, device=device)
captured = torch.func.jacrev(lambda weight: network(x))(weight)
assert not captured.any(), "a captured weight is no longer constant: update What breaks of weights_and_biases"

# %%
# The same with a name misspelt: :func:`torch.func.functional_call` ignores it and computes with the module's own.

misspelt = {"0.wieght": weight}
zeros = torch.func.jacrev(lambda parameters: torch.func.functional_call(network, parameters, (x,)))(misspelt)
assert not zeros["0.wieght"].any(), "functional_call has come to refuse: update What breaks of weights_and_biases"

# %%
# The function of ``module_function`` takes its parameters' names at their word, and no others.

try:
    func({**parameters, **misspelt}, x)
    raise AssertionError("a misspelt name was not refused")
except KeyError as error:
    print(error.args[0])

# %%
# Takeaway
# --------
# Make the parameters an argument and take reverse mode: a linear layer has more parameters than outputs. Write a
# parameter Jacobian only where its entries are needed; products take one pass. The exceptions: a few parameters that
# many outputs share, as those of a small convolution or one scale, ask for forward mode; and for an affine layer the
# Jacobian is its input.
