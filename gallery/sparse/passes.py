r"""
How many passes does my Jacobian need?
======================================

One pass of forward mode multiplies the Jacobian by a vector. With a unit vector it gives one column, so :math:`n`
columns take :math:`n` passes. But two columns can share a pass if no row has an entry in both: multiply by the sum of
their unit vectors, and each entry of the result belongs to one of the two.

Suppose each output depends on three neighbours, :math:`y_i = x_{i-1} - 2 x_i^2 + x_{i+1}`. Columns 0, 3, 6 and so on
have no row in common. So three passes give all entries, however many inputs there are.

**Answer:** As many as the fullest row has entries, or a few more. :func:`funcdiff.jacobian_sparse` finds out which
entries can differ from zero, and returns a sparse matrix of them. Two cases are different, and come at the end: a full
row, and a function that branches on values.

.. code-block:: python

    from funcdiff import explain, jacobian_sparse

    jacobian = jacobian_sparse(func)  # keep it: it remembers the pattern
    matrix = jacobian(x)  # a torch.sparse_csr tensor
    explain(jacobian, x)  # passes, entries, memory
"""

# %%
# Use it
# ------
# Each output of this function depends on three neighbours,
# :math:`y_i = x_{i-1} - 2 x_i^2 + x_{i+1}`, with zeros beyond both ends. We compute its Jacobian at 6 inputs.

import torch
from torch.nn.functional import pad

from funcdiff import explain, jacobian, jacobian_pattern, jacobian_sparse

x = torch.linspace(0.5, 1.5, 6, dtype=torch.float64)


def neighbours(x):
    return pad(x, (1, 0))[:-1] - 2 * x**2 + pad(x, (0, 1))[1:]


matrix = jacobian_sparse(neighbours)(x)
matrix

# %%
# The result stores the entries, their columns, and where each row starts. This form is called compressed rows (CSR). As
# a dense matrix it is a band of width three.

matrix.to_dense()

# %%
# :func:`funcdiff.jacobian_pattern` returns the places of the entries alone, with the number of passes.

pattern = jacobian_pattern(neighbours, x)
pattern

# %%
# Check it by hand
# ----------------
# Columns 0 and 3 of the band have no row in common. Neither have 1 and 4, nor 2 and 5. We add the unit vectors of each
# pair, and multiply the Jacobian by the three sums.

from torch.func import jvp

seeds = torch.eye(3, dtype=x.dtype).repeat(1, 2)  # column j has colour j % 3
products = torch.stack([jvp(neighbours, (x,), (v,))[1] for v in seeds])
seeds

# %%
# Columns that share a pass have the same *colour*. In each row there is at most one entry of each colour. So
# :math:`J_{ij}` is number :math:`i` of the product for the colour of column :math:`j`.

by_hand = torch.zeros(6, 6, dtype=x.dtype)
for i, j in zip(pattern.rows, pattern.columns, strict=True):
    by_hand[i, j] = products[j % 3, i]

ones = torch.ones(5, dtype=x.dtype)
expected = torch.diag(-4 * x) + torch.diag(ones, 1) + torch.diag(ones, -1)
torch.testing.assert_close(by_hand, expected)
torch.testing.assert_close(matrix.to_dense(), expected)

# %%
# The picture shows which pass computes which entry. No row contains a number twice.

from funcdiff.plots import plot, plot_pattern

colours = [j % 3 for j in pattern.columns]
plot_pattern(
    pattern.rows,
    pattern.columns,
    colours,
    shape=pattern.shape,
    title="Three passes give all entries of a band",
)

# %%
# You may know the simplest case of this idea: differentiating the sum over a batch. If the rows of a batch are
# independent, one pass serves all of them. A network on 8 rows therefore needs as many passes as on one row.

weights = torch.randn(16, 5), torch.randn(3, 16)


def network(rows):
    return (rows @ weights[0].T).tanh() @ weights[1].T


of_batch = jacobian_pattern(network, torch.randn(8, 5))
assert of_batch.passes == 3  # the outputs of a row are fewer than its inputs
of_batch

# %%
# Count
# -----
# Now we take a grid in two dimensions, on which two substances react and diffuse (the Brusselator). Each output depends
# on six inputs: a point, its four neighbours, and the other substance.


def laplacian(u):
    return u.roll(1, 0) + u.roll(-1, 0) + u.roll(1, 1) + u.roll(-1, 1) - 4 * u


def brusselator(y):
    """Time derivatives on a periodic grid, (2, N, N) -> (2, N, N)."""
    u, v = y
    reaction = u * u * v
    du = 1 + reaction - 4.4 * u + 0.1 * laplacian(u)
    dv = 3.4 * u - reaction + 0.1 * laplacian(v)
    return torch.stack([du, dv])


# %%
# We quadruple the number of inputs three times. The number of passes stays nearly the same. It is a little larger than
# the six that a row needs, because each column takes the first colour that fits.

from funcdiff import measure

grids = [torch.rand(2, N, N) for N in (6, 12, 24, 48)]
patterns = [jacobian_pattern(brusselator, grid) for grid in grids]
for found in patterns:
    print(f"{found.shape[1]:5} inputs, {found.nnz:6} entries, {found.passes} passes")
assert max(found.passes for found in patterns) <= 12

# %%
# In the smallest of these matrices, the two blocks on the diagonal are the diffusion, and the other two are the
# reaction.

small = patterns[0]
(groups, *_) = small.ways
plot_pattern(
    small.rows,
    small.columns,
    groups.columns[small.columns],
    shape=small.shape,
    title=f"{small.passes} passes give a Jacobian with {small.shape[1]} columns",
)

# %%
# The dense matrix has far more entries than the sparse one, so its peak of memory is higher as well.

N = 24
y = torch.rand(2, N, N, dtype=torch.float64)
sparse = jacobian_sparse(brusselator)
methods = {
    "jacobian": lambda y: jacobian(brusselator)(y).reshape(y.numel(), y.numel()),
    "jacobian_sparse": lambda y: sparse(y).to_dense(),
}
torch.testing.assert_close(methods["jacobian_sparse"](y), methods["jacobian"](y))
costs = measure.count({"jacobian": methods["jacobian"], "jacobian_sparse": sparse}, y)
costs

# %%
# The counts give the ratio of both peaks:

costs.claim("jacobian_sparse", smaller_peak_than="jacobian", by=5)

# %%
# Time
# ----
# The dense recipe makes 1152 passes for 1152 inputs, and the sparse one twelve at most. We time both. The comparison
# converts the sparse matrix to a dense one, so that both return the same. The first call, which finds the pattern, is
# not part of it.

times = measure.compare(methods, y, rounds=12, budget=3.0)
times

# %%
# The ratio is measured within each round:

times.claim("jacobian_sparse", faster_than="jacobian")

# %%
# The figure shows the spread of both times.

plot(times, title="A few passes are faster than one for each input")

# %%
# ``explain`` predicts both, and would say if the dense recipe were faster.

explain(sparse, y)

# %%
# What goes wrong
# ---------------
# **A full row.** Columns that meet in a full row all need passes of their own. The recipe notices this, and computes
# that row in a reverse pass of its own.


def with_total(x):
    return torch.cat([neighbours(x), x.exp().sum()[None]])


with_row = jacobian_pattern(with_total, torch.rand(50))
assert with_row.passes == 4
print(with_row)

# %%
# **A dense matrix.** Here the mean makes every output depend on every input. There is nothing to save, and ``explain``
# recommends the dense recipe.

centred = explain(jacobian_sparse(lambda x: x - x.mean()), torch.rand(50))
assert centred.recipe == "jacobian"
centred

# %%
# **A branch on values.** The pattern is that of the branch taken, so each call finds it again and compares the matrix
# with one more product. The result is right in both branches, and slow.


def branching(x):
    return x * x.roll(1) if x[0] > 1 else x * x.roll(2)


jacobian_of_branch = jacobian_sparse(branching)
for point in (x, x + 1):
    want = torch.func.jacrev(branching)(point)
    torch.testing.assert_close(jacobian_of_branch(point).to_dense(), want)
explain(jacobian_of_branch, x)

# %%
# **A pattern that is too small.** You may pass a pattern that you know. If it lacks an entry, you get an error and no
# wrong number, because each result is compared with a product along a random direction.

try:
    jacobian_sparse(neighbours, pattern=torch.eye(6))(x)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("a pattern without the neighbours passed")

# %%
# Takeaway
# --------
# The number of passes follows the fullest row of the matrix, not the number of inputs. ``jacobian_sparse`` finds the
# pattern and the passes, and ``hessian_sparse`` does so for Hessians.
#
# * If every output depends on every input, use :func:`funcdiff.jacobian`.
# * If you need a Jacobian once and n is small, the dense recipe is faster, since finding the pattern takes time.
# * If the function branches on values, write the branch as ``torch.where``. The pattern then holds for both branches.
# * Call the transform again instead of making it anew: it keeps the pattern.
