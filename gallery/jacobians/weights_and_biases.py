r"""
How do I compute a Jacobian with respect to weights and biases?
===============================================================

The output of a network depends on its parameters and on its input, :math:`y = f(\theta, x)`. Laplace approximations and
Gauss-Newton steps need :math:`\partial y / \partial \theta`: how much each output changes with each weight and each
bias. A layer with 3 inputs and 2 outputs has 6 weights and 2 biases, so this Jacobian has 2 rows and 8 columns.

A transform differentiates a function with respect to its arguments. The parameters of a module are not arguments: they
are stored inside it. So we first make them an argument.

**Answer:** Call :func:`funcdiff.module_function` to make the parameters an argument, then :func:`funcdiff.jacobian`.
The result is a dictionary with one block of the Jacobian for each parameter.

.. code-block:: python

    from funcdiff import jacobian, module_function

    func, parameters = module_function(network)
    J = jacobian(func)(parameters, x)  # J["0.weight"]: shape of y, then of the weight
"""

# %%
# Use it
# ------
# ``module_function`` returns two things: a function of the parameters and the input, and the parameters as a
# dictionary. A dictionary of tensors is a :term:`pytree`. The Jacobian is a dictionary with the same names, and each
# block has the shape of the output, then that of the parameter.

import torch
from torch.nn.functional import linear

from funcdiff import explain, jacobian, module_function, ravel

device = "cuda" if torch.cuda.is_available() else "cpu"
layers = torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
network = torch.nn.Sequential(*layers).to(device)
func, parameters = module_function(network)
x = torch.randn(3, device=device)

blocks = jacobian(func)(parameters, x)
for name, block in blocks.items():
    print(f"{name:10} {tuple(block.shape)}")
print(explain(jacobian(func), parameters, x).recipe)

# %%
# The last line is the chosen :term:`recipe`: :term:`reverse mode`, because a network has more parameters than outputs.
# You can also call it by its name: ``jacobian_batched_grad(func)(parameters, x)``.
#
# One matrix
# ----------
# Often you need one matrix with a row for each output and a column for each parameter. ``ravel`` puts all parameters
# into one vector, in the order of the names above.

vector, unravel = ravel(parameters)
matrix = jacobian(lambda vector: func(unravel(vector), x))(vector)
print(tuple(matrix.shape))
side_by_side = torch.cat([block.flatten(1) for block in blocks.values()], dim=1)
torch.testing.assert_close(matrix, side_by_side)

# %%
# Check it by hand
# ----------------
# For one layer, :math:`f(x) = \tanh(Wx + b)`, output :math:`i` depends on row :math:`i` of the weight and on entry
# :math:`i` of the bias only. All other derivatives are zero, which :math:`\delta_{ij}` expresses:
#
# .. math::
#
#     \frac{\partial f_i}{\partial W_{jk}} = (1 - f_i^2)\, \delta_{ij}\, x_k, \qquad
#     \frac{\partial f_i}{\partial b_j} = (1 - f_i^2)\, \delta_{ij}.
#
# If the weights are arguments already, you do not need ``module_function``: ``argnums=(0, 1)`` differentiates with
# respect to the first two arguments and returns a tuple.


def predict(weight, bias, x):
    return torch.tanh(linear(x, weight, bias))


def layer(inputs, outputs):
    shapes = (outputs, inputs), (outputs,), (inputs,)
    return tuple(torch.randn(shape, device=device) for shape in shapes)


def by_formula(weight, bias, x):
    slopes = torch.diag(1 - predict(weight, bias, x) ** 2)
    return slopes[:, :, None] * x, slopes


args = layer(16, 16)
of_weight, of_bias = jacobian(predict, argnums=(0, 1))(*args)
torch.testing.assert_close((of_weight, of_bias), by_formula(*args))

# %%
# For the network above, let :math:`t = \tanh(W x + b)` be its hidden layer and :math:`V` its outer weight. Then each of
# the four blocks has a formula, too.

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
# Count
# -----
# A layer with :math:`M` outputs and :math:`N` inputs has :math:`MN + M` parameters, and the Jacobian has a column for
# each. Reverse mode needs :math:`M` :term:`passes <pass>`, and :term:`forward mode` needs one for each parameter. We
# count two layers with 16384 weights on the :term:`meta device`, where nothing is computed. The first has 1024 outputs.

from funcdiff import jacobian_batched_grad, jacobian_forward
from funcdiff.measure import compare, count
from funcdiff.plots import plot


def affine(weight, bias, x):
    return linear(x, weight, bias)


recipes = {
    "jacobian_batched_grad": jacobian_batched_grad(affine, argnums=(0, 1)),
    "jacobian_forward": jacobian_forward(affine, argnums=(0, 1)),
}
many, few = layer(16, 1024), layer(1024, 16)
many_costs = count(recipes, *(tensor.to("meta") for tensor in many))
many_costs

# %%
# Even in reverse mode, the peak of memory is at least the Jacobian itself, :math:`M \times MN` numbers. Forward mode
# needs much more:

many_costs.claim("jacobian_batched_grad", smaller_peak_than="jacobian_forward", by=10)

# %%
# The second layer has 16 outputs and as many weights:

few_costs = count(recipes, *(tensor.to("meta") for tensor in few))
few_costs

# %%
# With fewer outputs, reverse mode makes fewer passes. Forward mode still makes one for each parameter:

few_costs.claim("jacobian_batched_grad", fewer_flops_than="jacobian_forward", by=500)

# %%
# Time
# ----
# For the layer with 16 outputs, reverse mode makes 16 passes and forward mode 16400. We time both. ``chunk_size=1024``
# lets forward mode compute 1024 columns at a time, so that it fits in the memory of a small machine. A candidate that
# takes longer than the budget is called once.

recipes = {
    "jacobian": jacobian(affine, argnums=(0, 1)),
    "jacobian_batched_grad": recipes["jacobian_batched_grad"],
    "jacobian_forward": jacobian_forward(affine, argnums=(0, 1), chunk_size=1024),
}
few_times = compare(recipes, *few, rounds=9, budget=0.05)
few_times

# %%
# Compare the last line with the first two.

few_times.claim("jacobian_batched_grad", faster_than="jacobian_forward", by=10)

# %%
# The figure shows the same times on a logarithmic axis.

slow = few_times["jacobian_forward"].median / few_times["jacobian"].median
title = f"Weight and bias of 16 outputs: forward mode takes {slow:.0f}× as long"
plot(few_times, title=title)

# %%
# ``jacobian`` should stand beside ``jacobian_batched_grad``, since it chose reverse mode. The layer with 1024 outputs:

many_times = compare(recipes, *many, rounds=9, budget=0.5)
many_times

# %%
# Here the Jacobian itself is large, and both modes must write it. We expect a smaller gain:

many_times.claim("jacobian_batched_grad", faster_than="jacobian_forward")

# %%
# For the bias alone there are as many parameters as outputs, and both modes make equally many passes.

bias_alone = {
    "jacobian_batched_grad": jacobian_batched_grad(affine, argnums=1),
    "jacobian_forward": jacobian_forward(affine, argnums=1),
}
times = compare(bias_alone, *few, rounds=9)
times.claim("jacobian_batched_grad", faster_than="jacobian_forward")

# %%
# Do you need the matrix?
# -----------------------
# For an affine layer :math:`Wx + b`, the derivative of output :math:`i` with respect to :math:`W_{ij}` is :math:`x_j`,
# and with respect to all other weights it is zero. So the Jacobian contains the input and zeros, nothing else. We
# compare the sizes of the two.

of_weight, _ = recipes["jacobian_batched_grad"](*many)
weight, bias, x = many
torch.testing.assert_close(of_weight, torch.eye(1024, device=device)[:, :, None] * x)
times_larger = of_weight.nbytes // x.nbytes
print(f"The Jacobian is {times_larger} times as large as the input.")

# %%
# If you need only the product of the Jacobian with a vector, one forward pass computes it (a :term:`JVP`). For a change
# :math:`V` of the weight, the product is :math:`V x`. We count both methods.

from torch.func import jvp

change = torch.randn_like(weight)
methods = {
    "jvp": lambda change: jvp(lambda w: affine(w, bias, x), (weight,), (change,))[1],
    "jacobian, then product": lambda change: torch.tensordot(
        recipes["jacobian_batched_grad"](*many)[0], change, 2
    ),
}
torch.testing.assert_close(methods["jvp"](change), change @ x)
costs = count(methods, change)
costs.claim("jvp", smaller_peak_than="jacobian, then product", by=100)

# %%
# What goes wrong
# ---------------
# The function must use its argument. Here the weight is an argument, but the module computes with its own weight. The
# derivative is zero, and torch raises no error.

weight = network[0].weight.detach()
x = torch.randn(3, device=device)
captured = torch.func.jacrev(lambda weight: network(x))(weight)
assert not captured.any(), "a captured weight is no constant now: update this section"
print("largest entry:", captured.abs().max().item())

# %%
# A misspelt name has the same effect: :func:`torch.func.functional_call` ignores it and uses the module's own weight.


def call(parameters):
    return torch.func.functional_call(network, parameters, (x,))


zeros = torch.func.jacrev(call)({"0.wieght": weight})
assert not zeros["0.wieght"].any(), "functional_call checks names: update this section"
print("largest entry:", zeros["0.wieght"].abs().max().item())

# %%
# The function from ``module_function`` checks the names and raises an error.

from textwrap import fill

try:
    func({**parameters, "0.wieght": weight}, x)
    raise AssertionError("a misspelt name was accepted")
except KeyError as error:
    print(fill(error.args[0], 84))

# %%
# Takeaway
# --------
# Make the parameters an argument with ``module_function`` and call ``jacobian``. The exceptions are:
#
# * If you need only products with vectors, do not compute the matrix: use :func:`torch.func.jvp` or
#   :func:`torch.func.vjp`.
# * If the function has one output, such as a loss, use :func:`torch.func.grad`.
# * If a few parameters affect many outputs, as in a small convolution, forward mode needs fewer passes.
# * If the layer is affine, its Jacobian with respect to the weight is its input.
