r"""
How do I compute a Jacobian with respect to weights and biases?
===============================================================

A layer with 3 inputs and 2 outputs has 6 weights and 2 biases. You want to know how much each of its 2 outputs changes
with each of these 8 parameters. This is a Jacobian with 2 rows and 8 columns. Laplace approximations and Gauss-Newton
steps need it.

``jacobian`` differentiates a function with respect to its arguments. But the parameters of a PyTorch module are not
arguments: they are stored inside the module. So we first write the module as a function that takes its parameters as an
argument.

**Answer:** Call :func:`funcdiff.module_function` to make the parameters an argument, then :func:`funcdiff.jacobian`.
The result is a dictionary with one block of the Jacobian for each parameter.

.. code-block:: python

    import torch
    from funcdiff import jacobian, module_function

    network, x = torch.nn.Linear(3, 2), torch.randn(3)
    func, parameters = module_function(network)  # func(parameters, x) is network(x)
    J = jacobian(func)(parameters, x)
    print(J["weight"].shape)  # (2, 2, 3): the output, then the weight
"""

# %%
# Use it
# ------
# Our network has two layers. ``module_function`` returns two things: a function of the parameters and the input, and
# the parameters as a dictionary. The Jacobian is a dictionary with the same names. The shape of each block is the shape
# of the output, followed by that of the parameter.

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
# The last line is the chosen method, the :term:`recipe`. It uses :term:`reverse mode`, because the network has more
# parameters than outputs. You can also call it by its name: ``jacobian_batched_grad(func)(parameters, x)``.
#
# One matrix
# ----------
# Often you need one matrix with a row for each output and a column for each parameter. ``ravel`` puts all parameters
# into one vector, in the order of the names above, and ``unravel`` gives the dictionary back. The matrix consists of
# the blocks, flattened and put side by side.

vector, unravel = ravel(parameters)
matrix = jacobian(lambda vector: func(unravel(vector), x))(vector)
print(tuple(matrix.shape))
side_by_side = torch.cat([block.flatten(1) for block in blocks.values()], dim=1)
torch.testing.assert_close(matrix, side_by_side)

# %%
# Check it by hand
# ----------------
# For one layer, :math:`f(x) = \tanh(Wx + b)`, output :math:`i` depends only on row :math:`i` of the weight and on entry
# :math:`i` of the bias. All other derivatives are zero. In the formulas, :math:`\delta_{ij}` is 1 if :math:`i = j`, and
# 0 otherwise:
#
# .. math::
#
#     \frac{\partial f_i}{\partial W_{jk}} = (1 - f_i^2)\, \delta_{ij}\, x_k, \qquad
#     \frac{\partial f_i}{\partial b_j} = (1 - f_i^2)\, \delta_{ij}.
#
# Here the weight and the bias are arguments already, so you do not need ``module_function``. With ``argnums=(0, 1)`` we
# differentiate with respect to the first two arguments. The result is a tuple of two Jacobians.


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
# The network above has two layers. Let :math:`t = \tanh(W x + b)` be the output of the first layer, and :math:`V` the
# weight of the second one. The chain rule gives a formula for each of the four blocks.

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
# A layer with :math:`N` inputs and :math:`M` outputs has :math:`MN + M` parameters, and the Jacobian has a column for
# each. Reverse mode needs :math:`M` :term:`passes <pass>`, one for each output. :term:`Forward mode <forward mode>`
# needs one for each parameter. We count two layers with 16384 weights. The first has 1024 outputs. On the
# :term:`meta device` nothing is computed.

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
# The peak, the largest memory in use, is at least the Jacobian itself, :math:`M \times MN` numbers. Forward mode needs
# much more than that:

many_costs.claim("jacobian_batched_grad", smaller_peak_than="jacobian_forward", by=10)

# %%
# The second layer has 16 outputs and also 16384 weights:

few_costs = count(recipes, *(tensor.to("meta") for tensor in few))
few_costs

# %%
# Now reverse mode makes only 16 passes. Forward mode still makes one for each parameter:

few_costs.claim("jacobian_batched_grad", fewer_flops_than="jacobian_forward", by=500)

# %%
# Time
# ----
# We time the layer with 16 outputs. Reverse mode makes 16 passes, and forward mode 16400. ``chunk_size=1024`` makes
# forward mode compute 1024 columns at a time, so that it fits in the memory of a small machine. A method that takes
# longer than the budget is timed once.

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
# ``jacobian`` should take slightly longer than ``jacobian_batched_grad``: it chose this recipe, and looks up its choice
# at each call. Now the layer with 1024
# outputs:

many_times = compare(recipes, *many, rounds=9, budget=0.5)
many_times

# %%
# Here the Jacobian itself is large, and both modes must write it to memory. So we expect a smaller gain:

many_times.claim("jacobian_batched_grad", faster_than="jacobian_forward")

# %%
# There are as many biases as outputs. So with respect to the bias alone, both modes make equally many passes. In this
# run:

bias_alone = {
    "jacobian_batched_grad": jacobian_batched_grad(affine, argnums=1),
    "jacobian_forward": jacobian_forward(affine, argnums=1),
}
times = compare(bias_alone, *few, rounds=9)
times.claim("jacobian_batched_grad", faster_than="jacobian_forward")

# %%
# Do you need the matrix?
# -----------------------
# For a layer without an activation, :math:`Wx + b`, the derivative of output :math:`i` with respect to :math:`W_{ij}`
# is :math:`x_j`. With respect to all other weights it is zero. So the Jacobian contains only copies of the input, and
# zeros. We compare the size of the Jacobian with that of the input.

of_weight, _ = recipes["jacobian_batched_grad"](*many)
weight, bias, x = many
torch.testing.assert_close(of_weight, torch.eye(1024, device=device)[:, :, None] * x)
times_larger = of_weight.nbytes // x.nbytes
print(f"The Jacobian is {times_larger} times as large as the input.")

# %%
# Often you need only the product of the Jacobian with a vector. If the weight changes by :math:`V`, the output changes
# by :math:`V x`. One forward pass computes this product (a :term:`JVP`), without the matrix. We count both methods.

from torch.func import jvp


def by_jvp(change):
    return jvp(lambda weight: affine(weight, bias, x), (weight,), (change,))[1]


def by_matrix(change):
    of_weight, _ = recipes["jacobian_batched_grad"](*many)
    return torch.tensordot(of_weight, change, 2)


change = torch.randn_like(weight)
methods = {"jvp": by_jvp, "jacobian, then product": by_matrix}
torch.testing.assert_close(methods["jvp"](change), change @ x)
costs = count(methods, change)
costs.claim("jvp", smaller_peak_than="jacobian, then product", by=100)

# %%
# What goes wrong
# ---------------
# *The function does not use its argument.* Here ``weight`` is an argument, but the module computes with the weight that
# is stored inside it. The derivative is zero, and torch raises no error.

weight = network[0].weight.detach()
x = torch.randn(3, device=device)
captured = torch.func.jacrev(lambda weight: network(x))(weight)
assert not captured.any(), "a captured weight is no constant now: update this section"
print("largest entry:", captured.abs().max().item())

# %%
# *A name is misspelt.* :func:`torch.func.functional_call` ignores an unknown name and uses the module's own weight.


def call(parameters):
    return torch.func.functional_call(network, parameters, (x,))


zeros = torch.func.jacrev(call)({"0.wieght": weight})
assert not zeros["0.wieght"].any(), "functional_call checks names: update this section"
print("largest entry:", zeros["0.wieght"].abs().max().item())

# %%
# The function that ``module_function`` returns checks the names and raises an error.

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
# * If a few parameters affect many outputs, as in a small convolution, ``jacobian`` chooses forward mode by itself.
# * If the layer is affine, :math:`Wx + b`, its Jacobian with respect to the weight consists of its input and zeros.
