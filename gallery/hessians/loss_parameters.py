r"""
How do I compute the Hessian of a loss with respect to a network's parameters?
==============================================================================

The Hessian says how the loss curves: :math:`H_{jk} = \partial^2 L / \partial w_j\, \partial w_k` for the parameters
:math:`w`. Newton steps and Laplace approximations need it as one symmetric matrix. A network with 67 parameters has a
Hessian of 67 rows and 67 columns.

To get this matrix, write the loss as a function of one vector. This takes two steps: make the parameters of the module
an argument, and put all of them into one vector.

**Answer:** :func:`funcdiff.module_function` makes the parameters an argument, and :func:`funcdiff.ravel` makes them one
vector. The :func:`funcdiff.hessian` of the loss is then one matrix.

.. code-block:: python

    from funcdiff import hessian, module_function, ravel

    func, parameters = module_function(network)  # a function of (parameters, x)
    vector, unravel = ravel(parameters)

    def loss_of(vector):
        return loss(func(unravel(vector), x), y)

    H = hessian(loss_of)(vector)  # square
"""

# %%
# Use it
# ------
# We classify irises by four measurements. The loss is the cross-entropy of a small network over all 150 flowers.
# ``objective`` returns two things: the loss as a function of one vector, and the vector of the parameters.

import torch
from sklearn.datasets import load_iris
from torch.nn.functional import cross_entropy

from funcdiff import explain, hessian, module_function, ravel

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
arrays = load_iris(return_X_y=True)
measures, species = (torch.tensor(array, device=device) for array in arrays)
X = (measures - measures.mean(0)) / measures.std(0)


def classifier(hidden):
    layers = torch.nn.Linear(4, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 3)
    return torch.nn.Sequential(*layers).to(device, torch.float64)


def objective(network):
    predict, parameters = module_function(network)
    start, unravel = ravel(parameters)

    def loss(vector):
        return cross_entropy(predict(unravel(vector), X), species)

    return loss, start


# %%
# With 8 hidden units there are 67 parameters, so the Hessian has the shape (67, 67). We check that it is symmetric, and
# print its shape and the chosen :term:`recipe`.

network = classifier(hidden=8)
loss, start = objective(network)
matrix = hessian(loss)(start)
torch.testing.assert_close(matrix, matrix.T)
print(tuple(matrix.shape), explain(hessian(loss), start).recipe)

# %%
# ``hessian_double_backward`` applies plain autograd twice, both times in :term:`reverse mode`. You can call it by its
# name.
#
# Blocks instead of a matrix
# --------------------------
# Without ``ravel`` the parameters are a dictionary, a :term:`pytree`. The Hessian then has a block for each pair of
# parameters, with the shape of the first one, then that of the second.

predict, parameters = module_function(network)


def loss_of_dictionary(parameters):
    return cross_entropy(predict(parameters, X), species)


blocks = hessian(loss_of_dictionary)(parameters)
for name, block in blocks["2.weight"].items():
    print(f"2.weight, {name:9} {tuple(block.shape)}")

# %%
# The blocks, flattened and put side by side, are the matrix.

rows = [
    [block.flatten(parameters[name].dim()).flatten(0, -2) for block in row.values()]
    for name, row in blocks.items()
]
torch.testing.assert_close(matrix, torch.cat([torch.cat(row, dim=1) for row in rows]))

# %%
# Check it by hand
# ----------------
# Two models have a Hessian with a known formula. The first is least squares, :math:`\frac{1}{B} |Xw - y|^2`, with the
# Hessian :math:`\frac{2}{B} X^T X`.

B, N = X.shape
w = torch.randn(N, dtype=X.dtype, device=device)
y = torch.randn(B, dtype=X.dtype, device=device)
least_squares = hessian(lambda w: (X @ w - y).square().mean())(w)
torch.testing.assert_close(least_squares, 2 / B * X.T @ X)

# %%
# The second is a linear classifier. Let :math:`p` be its probabilities. Then the Hessian is the mean over the rows of
#
# .. math::
#
#     \left(p_i\, \delta_{ik} - p_i\, p_k\right) x_j\, x_l
#
# for the weights :math:`W_{ij}` and :math:`W_{kl}`.

module = torch.nn.Linear(N, 3, bias=False, dtype=X.dtype, device=device)
linear, weights = module_function(module)
p = linear(weights, X).softmax(1)
curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None]
by_formula = torch.einsum("bik,bj,bl->ijkl", curvature, X, X) / B

of_linear = hessian(lambda weights: cross_entropy(linear(weights, X), species))(weights)
torch.testing.assert_close(of_linear["weight"]["weight"], by_formula)

# %%
# Count
# -----
# A loss has one output. So :term:`reverse mode` computes its gradient in one :term:`pass`, and :term:`forward mode`
# needs one for each parameter. The outer derivative repeats this for each parameter. We count ``hessian``, its choice,
# and the four compositions, named :term:`outer over inner`.

from funcdiff import (
    hessian_double_backward,
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
)
from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

recipes = {
    "hessian": hessian,
    "hessian_double_backward": hessian_double_backward,
    "hessian_forward_over_reverse": hessian_forward_over_reverse,
    "hessian_reverse_over_reverse": hessian_reverse_over_reverse,
    "hessian_reverse_over_forward": hessian_reverse_over_forward,
    "hessian_forward_over_forward": hessian_forward_over_forward,
}
methods = {name: recipe(loss) for name, recipe in recipes.items()}
costs = count(methods, start)
costs

# %%
# Look at the last two lines. With forward mode inside, the FLOPs (floating-point operations) are much larger:

costs.claim(
    "hessian_double_backward", fewer_flops_than="hessian_forward_over_forward", by=10
)

# %%
# Time
# ----
# Fewer FLOPs should take less time. We time all six. A candidate that takes longer than the budget is called once.

times = compare(methods, start, rounds=9, budget=0.3)
times

# %%
# The ratio says how many times as long as the fastest recipe each one takes. The recipes with reverse mode inside
# should be ahead:

times.claim("hessian", faster_than="hessian_forward_over_forward")

# %%
# Three recipes with reverse mode inside need nearly the same FLOPs. We compare the choice of ``hessian`` with
# ``torch.func.hessian``, which is forward over reverse, over more rounds. If the interval includes 1, we cannot tell.

pair = ["hessian_double_backward", "hessian_forward_over_reverse"]
closer = compare({name: methods[name] for name in pair}, start, rounds=40)
closer.claim("hessian_double_backward", faster_than="hessian_forward_over_reverse")

# %%
# The FLOPs grow with the square of the number of parameters. We increase the number of hidden units from 2 to 32.


def widened(hidden):
    loss, vector = objective(classifier(hidden))
    return {name: recipes[name](loss) for name in ["hessian", *pair]}, (vector,)


study = sweep(widened, [2, 4, 8, 16, 32], label="hidden units", rounds=9)
growth = study[32]["hessian"].median / study[8]["hessian"].median
title = f"From 8 to 32 hidden units, the time of hessian grows to {growth:.1f}×"
plot(study, title=title)

# %%
# With few hidden units, the calls take most of the time. With many, the curves rise with the arithmetic. All three
# lie close together, because they need nearly the same FLOPs.
#
# What the Hessian tells us
# -------------------------
# An eigenvalue is the curvature of the loss along its eigenvector: zero where the loss is flat, negative where it bends
# downwards. We train the network, with a small decay of its weights, and compute all eigenvalues.

decay = 1e-3
options = {"max_iter": 100, "line_search_fn": "strong_wolfe"}
optimiser = torch.optim.LBFGS(network.parameters(), **options)


def closure():
    optimiser.zero_grad()
    squares = sum(w.square().sum() for w in network.parameters())
    value = cross_entropy(network(X), species) + decay * squares
    value.backward()
    return value


optimiser.step(closure)
loss, trained = objective(network)
eigenvalues = torch.linalg.eigvalsh(hessian(loss)(trained)).cpu()

# %%
# Nine eigenvalues must be zero. If you add one vector to all three rows of the last weight, or one number to all three
# biases, no probability changes. These are 8 + 1 directions in which the loss is flat.

from funcdiff.plots import plot_spectrum

flat = eigenvalues[eigenvalues.abs().argsort()[: 8 + 1]]
torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-12)
names = [f"all {len(eigenvalues)}", f"the {len(flat)} flat ones"]
large = int((eigenvalues > eigenvalues.max() / 100).sum())
title = f"{large} of {len(eigenvalues)} eigenvalues exceed 1 % of the largest"
plot_spectrum(eigenvalues, flat, names=names, title=title)

# %%
# The ringed eigenvalues are the nine zeros. A Newton step divides by the eigenvalues, so it needs damping there, and a
# Laplace approximation needs a prior. We print how many eigenvalues are negative, before and after training.

spectra = {"before": torch.linalg.eigvalsh(matrix), "after": eigenvalues}
for when, values in spectra.items():
    negative = int((values < -1e-12).sum())
    smallest, largest = f"{values.min():.2g}", f"{values.max():.2g}"
    print(f"{when:6} training: {negative} negative; from {smallest} to {largest}")

# %%
# Training minimized the loss plus the decay. In some directions the loss alone still curves down, so some eigenvalues
# are negative. The decay adds twice its factor to each eigenvalue. With it, all are positive.

assert (eigenvalues + 2 * decay > 0).all()
print(f"smallest with the decay: {(eigenvalues + 2 * decay).min():.2g}")

# %%
# What goes wrong
# ---------------
# ``torch.nn.utils.vector_to_parameters`` also writes a vector into a module, but only its numbers: the loss does not
# depend on the vector any more. torch's own Hessian is then zero, and torch raises no error.

from torch.nn.utils import vector_to_parameters


def loss_by_writing(vector):
    vector_to_parameters(vector, network.parameters())
    return cross_entropy(network(X), species)


zeros = torch.autograd.functional.hessian(loss_by_writing, trained)
torch.testing.assert_close(loss_by_writing(trained), loss(trained))
assert not zeros.any(), "vector_to_parameters keeps the graph: update this section"
print("largest entry:", zeros.abs().max().item())

# %%
# With ``strict=True``, torch raises an error if the output does not depend on the input.

from textwrap import fill

try:
    torch.autograd.functional.hessian(loss_by_writing, trained, strict=True)
except RuntimeError as error:
    print(fill(str(error), 84))

# %%
# Takeaway
# --------
# Make the parameters one vector and call ``hessian``. This works for some thousands of parameters, because both the
# passes and the entries grow with their number. The exceptions are:
#
# * If you need only products with vectors, or a few eigenvalues, do not compute the matrix: use
#   :func:`funcdiff.hvp_operator`.
# * If you need the block of one layer, pass only its parameters to ``ravel``, and call
#   ``func({**parameters, **unravel(v)}, x)``: the others cost nothing. See :ref:`a subset of parameters <subset>`.
# * If the network contains a normalization layer, do not use the four compositions by name: with respect to its weight,
#   torch gets their Hessians wrong. ``hessian`` avoids this fault.
