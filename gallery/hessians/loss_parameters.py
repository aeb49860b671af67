r"""
How do I compute the Hessian of a loss with respect to a network's parameters?
==============================================================================

The Hessian of a loss is the matrix of its second derivatives. If the parameters are :math:`w_1` and :math:`w_2` and the
loss is :math:`L = w_1^2 + 3 w_1 w_2`, the Hessian is

.. math::

    H = \begin{pmatrix} 2 & 3 \\ 3 & 0 \end{pmatrix}.

A network with 67 parameters has a Hessian with 67 rows and 67 columns. Newton's method and Laplace approximations need
this matrix. For a large network it does not fit in memory: compute products with vectors instead
(:func:`funcdiff.hvp_operator`). The parameters of a PyTorch module are several tensors inside the module. To get one
matrix, write the loss as a function of one vector that contains all parameters.

**Answer:** :func:`funcdiff.module_function` turns the module into a function of its parameters, and
:func:`funcdiff.ravel` turns these parameters into one vector. Then call :func:`funcdiff.hessian` on the loss.

.. code-block:: python

    from torch.nn.functional import cross_entropy
    from funcdiff import hessian, module_function, ravel

    predict, parameters = module_function(network)  # predict(parameters, X): network(X)
    start, unravel = ravel(parameters)  # unravel(vector) gives the parameters back

    def loss(vector):
        return cross_entropy(predict(unravel(vector), X), y)
    H = hessian(loss)(start)
"""

# %%
# Use it
# ------
# We classify irises by four measurements. The data are 150 flowers of 3 species.

import torch
from sklearn.datasets import load_iris
from torch.nn.functional import cross_entropy

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
X, species = load_iris(return_X_y=True)
X, species = torch.tensor(X, device=device), torch.tensor(species, device=device)
X = (X - X.mean(0)) / X.std(0)

# %%
# The network has 8 hidden units. ``predict(parameters, X)`` equals ``network(X)``, but the parameters are an argument:
# a dictionary of four tensors. ``ravel`` puts them into one vector.

from funcdiff import explain, hessian, module_function, ravel


def classifier(hidden):
    layers = torch.nn.Linear(4, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 3)
    return torch.nn.Sequential(*layers).to(device, torch.float64)


network = classifier(hidden=8)
predict, parameters = module_function(network)
start, unravel = ravel(parameters)
print({name: tuple(p.shape) for name, p in parameters.items()}, tuple(start.shape))

# %%
# Now we write the loss as a function of this vector. ``unravel`` turns the vector into the dictionary again. The
# Hessian of this function is one symmetric matrix.


def loss(vector):
    return cross_entropy(predict(unravel(vector), X), species)


matrix = hessian(loss)(start)
torch.testing.assert_close(matrix, matrix.T)
print(tuple(matrix.shape), explain(hessian(loss), start).recipe)

# %%
# ``hessian`` chooses a method, a :term:`recipe`. Here it chose ``hessian_double_backward``: one backward pass for the
# gradient with ``create_graph=True``, and then one for each of the 67 parameters, all together.
#
# Blocks instead of a matrix
# --------------------------
# Without ``ravel``, the parameters are a dictionary. The Hessian then has a block for each pair of parameters. The
# shape of a block is the shape of the first parameter, followed by that of the second.


def loss_of_dictionary(parameters):
    return cross_entropy(predict(parameters, X), species)


blocks = hessian(loss_of_dictionary)(parameters)
for name, block in blocks["2.weight"].items():
    print(f"2.weight, {name:9} {tuple(block.shape)}")

# %%
# If we flatten the blocks and put them side by side, we get the matrix again.

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
# A Hessian needs two derivatives, one applied to the result of the other. The inner derivative is the gradient. The
# loss has one output, so :term:`reverse mode` computes the gradient in one backward :term:`pass`.
# :term:`Forward mode <forward mode>` needs a pass for each parameter. We count
# ``hessian``, the recipe that it chose, and four others. Their names say :term:`outer over inner`.

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
# In the last two lines, forward mode computes the gradient. This needs many more FLOPs (floating-point operations):

costs.claim("hessian", fewer_flops_than="hessian_forward_over_forward", by=10)

# %%
# Time
# ----
# Fewer FLOPs should take less time. We time all six. A candidate that takes longer than the budget is called once.

times = compare(methods, start, rounds=9, budget=0.3)
times

# %%
# The ratio says how many times as long as the fastest recipe each one takes. Recipes that compute the gradient in
# reverse mode should be ahead:

times.claim("hessian", faster_than="hessian_forward_over_forward")

# %%
# The recipes with reverse mode inside need nearly the same FLOPs. ``torch.func.hessian`` is forward over reverse. We
# compare it with the choice of ``hessian`` over more rounds. If the interval below includes 1, this run cannot tell
# which is faster.

pair = ["hessian_double_backward", "hessian_forward_over_reverse"]
closer = compare({name: methods[name] for name in pair}, start, rounds=40)
closer.claim("hessian_double_backward", faster_than="hessian_forward_over_reverse")

# %%
# The FLOPs grow with the square of the number of parameters. We increase the number of hidden units from 2 to 32.


def widened(hidden):
    predict, parameters = module_function(classifier(hidden))
    vector, unravel = ravel(parameters)

    def loss(vector):
        return cross_entropy(predict(unravel(vector), X), species)

    return {name: recipes[name](loss) for name in ["hessian", *pair]}, (vector,)


study = sweep(widened, [2, 4, 8, 16, 32], label="hidden units", rounds=9)
growth = study[32]["hessian"].median / study[8]["hessian"].median
title = f"From 8 to 32 hidden units, the time of hessian grows to {growth:.1f}×"
plot(study, title=title)

# %%
# With few hidden units, starting the operations takes most of the time, so the recipes that start fewer are ahead. With
# many, the arithmetic does. The curves come closer there, because the recipes need nearly the same FLOPs.
#
# What the Hessian tells us
# -------------------------
# An eigenvalue of the Hessian is the curvature of the loss along its eigenvector. It is zero where the loss is flat,
# and negative where the loss curves downwards. We train the network, with a small penalty on the size of its weights
# (weight decay), and compute all eigenvalues.

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
trained, _ = ravel(module_function(network)[1])
eigenvalues = torch.linalg.eigvalsh(hessian(loss)(trained)).cpu()

# %%
# Nine eigenvalues must be zero. The last layer has three rows of 8 weights, one for each species. If you add the same
# number to one weight of all three rows, the three outputs change alike, and no probability changes. There are 8 such
# weights, and the biases are a ninth case. So the loss is flat in 9 directions.

from funcdiff.plots import plot_spectrum

flat = eigenvalues[eigenvalues.abs().argsort()[: 8 + 1]]
torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-12)
names = [f"all {len(eigenvalues)}", f"the {len(flat)} flat ones"]
large = int((eigenvalues > eigenvalues.max() / 100).sum())
title = f"{large} of {len(eigenvalues)} eigenvalues exceed 1 % of the largest"
plot_spectrum(eigenvalues, flat, names=names, title=title)

# %%
# The ringed eigenvalues are the nine zeros. A Newton step divides by the eigenvalues, so it needs damping in these
# directions. A Laplace approximation needs a prior. We print how many eigenvalues are negative before and after
# training.

spectra = {"before": torch.linalg.eigvalsh(matrix), "after": eigenvalues}
for when, values in spectra.items():
    negative = int((values < -1e-12).sum())
    smallest, largest = f"{values.min():.2g}", f"{values.max():.2g}"
    print(f"{when:6} training: {negative} negative; from {smallest} to {largest}")

# %%
# Some eigenvalues stay negative, because we minimized the loss plus the penalty. The penalty adds ``2 * decay``.

assert (eigenvalues + 2 * decay > 0).all()
print(f"smallest with the decay: {(eigenvalues + 2 * decay).min():.2g}")

# %%
# What goes wrong
# ---------------
# ``torch.nn.utils.vector_to_parameters`` *cuts the derivative.* It copies the numbers of a vector into the module. The
# loss then depends on the module's parameters, not on your vector. torch returns zeros, funcdiff raises an error.

from torch.nn.utils import vector_to_parameters


def loss_by_writing(vector):
    vector_to_parameters(vector, network.parameters())
    return cross_entropy(network(X), species)


zeros = torch.autograd.functional.hessian(loss_by_writing, trained)
torch.testing.assert_close(loss_by_writing(trained), loss(trained))
assert not zeros.any(), "vector_to_parameters keeps the graph: update this section"
print("largest entry, by torch:", zeros.abs().max().item())

# %%
# Takeaway
# --------
# Put the parameters into one vector and call ``hessian``. This works for some thousands of parameters. The number of
# passes grows with the number of parameters, and the number of entries with its square. Exceptions:
#
# * If you need only products with vectors, or a few eigenvalues, use :func:`funcdiff.hvp_operator`.
# * If you need the block of one layer, pass only its parameters to ``ravel``, and call
#   ``predict({**parameters, **unravel(v)}, X)``. See :ref:`a subset of parameters <subset>`.
# * If the network contains a normalization layer, do not call the recipes with *over* in their name: torch is wrong
#   there with respect to the weight of the layer. ``hessian`` and ``hessian_double_backward`` are right.
