r"""
How do I get the Hessian of a loss with respect to a network's parameters?
==========================================================================

Laplace approximations, Newton steps and curvature studies want it as one symmetric matrix. It has as many entries as
the parameters squared, and torch hands it over in blocks, a dictionary of dictionaries, if it finds the parameters.

**Answer:** :func:`funcdiff.module_function` for the parameters, :func:`funcdiff.ravel` for one vector of them, and
:func:`funcdiff.hessian_forward_over_reverse` for the matrix: one pass over the gradient for each parameter.
"""

# %%
# The function
# ------------
# A small classifier of irises, and its loss over all 150 of them: a function of the parameters alone.

import torch
from sklearn.datasets import load_iris
from torch.nn.functional import cross_entropy

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
measures, species = (torch.tensor(array, device=device) for array in load_iris(return_X_y=True))
X = (measures - measures.mean(0)) / measures.std(0)


def classifier(hidden):
    layers = torch.nn.Linear(4, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 3)
    return torch.nn.Sequential(*layers).to(device, torch.float64)


# %%
# By hand
# -------
# Two models have a Hessian to write down. Least squares, :math:`\frac{1}{B} |Xw - y|^2`, has
# :math:`\frac{2}{B} X^T X`, whatever :math:`w` and :math:`y`.

from funcdiff import hessian_forward_over_reverse, module_function, ravel

B, N = X.shape
w, y = torch.randn(N, dtype=X.dtype, device=device), torch.randn(B, dtype=X.dtype, device=device)
least_squares = hessian_forward_over_reverse(lambda w: (X @ w - y).square().mean())(w)
torch.testing.assert_close(least_squares, 2 / B * X.T @ X)

# %%
# A linear classifier with logits :math:`Wx` and probabilities :math:`p` has, as the mean over the rows,
#
# .. math::
#
#     \frac{\partial^2 L}{\partial W_{ij}\, \partial W_{kl}}
#     = \left(p_i\, \delta_{ik} - p_i\, p_k\right) x_j\, x_l.

linear, parameters = module_function(torch.nn.Linear(N, 3, bias=False, dtype=X.dtype, device=device))
p = linear(parameters, X).softmax(1)
by_formula = torch.einsum("bik,bj,bl->ijkl", torch.diag_embed(p) - p[:, :, None] * p[:, None], X, X) / B

blocks = hessian_forward_over_reverse(lambda parameters: cross_entropy(linear(parameters, X), species))(parameters)
torch.testing.assert_close(blocks["weight"]["weight"], by_formula)

# %%
# The recipes
# -----------
# A network with several parameters gives a block for each pair of them: first the parameter that is differentiated
# first, then the other, and the shapes of both in this order.

network = classifier(hidden=8)
predict, parameters = module_function(network)
blocks = hessian_forward_over_reverse(lambda parameters: cross_entropy(predict(parameters, X), species))(parameters)
for name, block in blocks["2.weight"].items():
    print(f"2.weight, {name:9} {tuple(block.shape)}")

# %%
# With ``ravel`` the same comes as one matrix, in the order of the names. It is symmetric.


def objective(network):
    """The loss as a function of the vector of all parameters, and that vector."""
    predict, parameters = module_function(network)
    vector, unravel = ravel(parameters)
    return lambda vector: cross_entropy(predict(unravel(vector), X), species), vector


loss, start = objective(network)
matrix = hessian_forward_over_reverse(loss)(start)
torch.testing.assert_close(matrix, matrix.T)

rows = [
    [block.flatten(parameters[name].dim()).flatten(0, -2) for block in row.values()] for name, row in blocks.items()
]
torch.testing.assert_close(matrix, torch.cat([torch.cat(row, dim=1) for row in rows]))
print(tuple(matrix.shape))

# %%
# Prediction
# ----------
# A loss is one number, so reverse mode inside takes one pass for all :math:`n` parameters where forward mode takes
# :math:`n`. Outside, either mode repeats it :math:`n` times.

from funcdiff import hessian_forward_over_forward, hessian_reverse_over_forward, hessian_reverse_over_reverse
from funcdiff.measure import compare, count, sweep
from funcdiff.plots import plot

compositions = {
    "hessian_forward_over_reverse": hessian_forward_over_reverse,
    "hessian_reverse_over_reverse": hessian_reverse_over_reverse,
    "hessian_reverse_over_forward": hessian_reverse_over_forward,
    "hessian_forward_over_forward": hessian_forward_over_forward,
}
ways = {name: hessian(loss) for name, hessian in compositions.items()}
costs = count(ways, start)
costs

# %%
costs.claim("hessian_forward_over_reverse", fewer_flops_than="hessian_forward_over_forward", by=10)

# %%
costs.claim("hessian_forward_over_reverse", smaller_peak_than="hessian_forward_over_forward", by=10)

# %%
# Measurement
# -----------

times = compare(ways, start, rounds=9, budget=0.3)
times

# %%
times.claim("hessian_forward_over_reverse", faster_than="hessian_forward_over_forward")

# %%
# The two with reverse mode inside do the same arithmetic. Which one is quicker is a matter of what a pass costs beside
# it, and we ask over more rounds. Where the interval holds 1, "no difference" says that these rounds cannot tell the
# two apart, not that they are equal.

inside_reverse = {name: way for name, way in ways.items() if name.endswith("over_reverse")}
closer = compare(inside_reverse, start, rounds=40)
closer.claim("hessian_forward_over_reverse", faster_than="hessian_reverse_over_reverse")

# %%
# With the number of parameters the arithmetic grows as its square. We widen the hidden layer, 8 parameters a unit.


def widened(hidden):
    loss, vector = objective(classifier(hidden))
    return {name: hessian(loss) for name, hessian in list(compositions.items())[:2]}, (vector,)


study = sweep(widened, [2, 4, 8, 16, 32], label="hidden units", rounds=9)
plot(study, title="Calls first, then arithmetic, the square of the parameters")

# %%
# What it says
# ------------
# We train, and look at the eigenvalues. Adding one vector to all three rows of the last weight, or one number to all
# three biases, shifts the logits alike and changes no probability: 8 + 1 directions in which the loss is flat.

decay = 1e-3
optimiser = torch.optim.LBFGS(network.parameters(), max_iter=100, line_search_fn="strong_wolfe")


def closure():
    optimiser.zero_grad()
    value = cross_entropy(network(X), species) + decay * sum(w.square().sum() for w in network.parameters())
    value.backward()
    return value


optimiser.step(closure)
loss, trained = objective(network)
eigenvalues = torch.linalg.eigvalsh(hessian_forward_over_reverse(loss)(trained)).cpu()
flat = eigenvalues[eigenvalues.abs().argsort()[: 8 + 1]]
torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-12)

# %%
from funcdiff.plots import plot_spectrum

names = [f"all {len(eigenvalues)}", f"the {len(flat)} flat ones"]
plot_spectrum(eigenvalues, flat, names=names, title="A few directions carry the curvature, and nine have none")

# %%
# A Newton step divides by these eigenvalues, so it needs the flat ones damped, and a Laplace approximation needs a
# prior. How many are negative, before training and after?

for when, values in {"before": torch.linalg.eigvalsh(matrix), "after": eigenvalues}.items():
    negative = int((values < -1e-12).sum())
    print(f"{when:6} training: {negative} negative; from {values.min():.2g} to {values.max():.2g}")

# %%
# Negative after training, at a minimum? It is one of the loss plus the decay of the weights, which adds twice the decay
# to every eigenvalue. With it all are positive; the loss alone curves down, by less than that, in some directions.

assert (eigenvalues + 2 * decay > 0).all()
print(f"with the decay: from {(eigenvalues + 2 * decay).min():.2g} to {(eigenvalues + 2 * decay).max():.2g}")

# %%
# What breaks
# -----------
# torch has its own way to write a vector into a module, and it looks right. But it writes numbers, not the graph that
# made them, so the loss no longer depends on the vector: :func:`torch.autograd.functional.hessian` returns zeros.

from torch.nn.utils import vector_to_parameters


def loss_by_writing(vector):
    vector_to_parameters(vector, network.parameters())
    return cross_entropy(network(X), species)


zeros = torch.autograd.functional.hessian(loss_by_writing, trained)
torch.testing.assert_close(loss_by_writing(trained), loss(trained))
assert not zeros.any(), "vector_to_parameters has come to keep the graph: update What breaks of loss_parameters"

# %%
# Its argument ``strict=True`` refuses what does not depend on the input. ``ravel`` and ``module_function`` write into
# nothing.

try:
    torch.autograd.functional.hessian(loss_by_writing, trained, strict=True)
except RuntimeError as error:
    print(error)

# %%
# Takeaway
# --------
# Parameters into a vector, reverse mode inside, one matrix out: right for some thousands of parameters, since both the
# passes and the entries grow with them. The exceptions: where only products or a few eigenvalues are needed, no matrix
# is, see :func:`funcdiff.hvp_operator`; one layer's block costs only that layer's parameters; and by the weight of a
# normalisation all four compositions are wrong under this torch, so take :func:`funcdiff.hessian_taylor`.
