r"""
How many passes does my Jacobian need?
======================================

Suppose each output depends on three neighbouring inputs: :math:`y_i = x_{i-1} - 2 x_i^2 + x_{i+1}`. Most entries of the
Jacobian are then zero: it is banded, here tridiagonal. With 1000 inputs it has 1000 columns, but three passes are
enough to compute it.

Why? One pass of forward mode multiplies the Jacobian by a vector. If only entry 0 of the vector is 1, the result is
column 0, with its few entries in rows 0 and 1. If entries 0 and 3 are both 1, the result is the sum of columns 0 and 3.
Column 3 has its entries in rows 2, 3 and 4. No row has an entry in both columns, so we can read both from the sum.
Columns 0, 3, 6 and so on share the first pass, columns 1, 4, 7 the second, and columns 2, 5, 8 the third.

**Answer:** Count the entries of the fullest row and of the fullest column: the smaller number, here three, is usually
the number of passes, and at times they are up to twice as many. :func:`funcdiff.jacobian_sparse` finds out which
entries can differ from zero, groups columns or rows, and returns a sparse matrix. It helps little if every output
depends on every input, or if the function branches on values.

.. code-block:: python

    import torch
    from funcdiff import explain, jacobian_sparse

    jacobian = jacobian_sparse(func)  # keep it: it remembers where the entries are
    matrix = jacobian(x)  # a torch.sparse_csr tensor
    explain(jacobian, x)  # passes, entries, memory
    # One pass in torch alone: the sum of the columns of J where v is 1
    torch.func.jvp(func, (x,), (v,))[1]
"""

# %%
# Use it
# ------
# We take the function from above, with 6 inputs. Beyond both ends, :math:`x` is zero.

import torch
from torch.nn.functional import pad

from funcdiff import explain, jacobian, jacobian_pattern, jacobian_sparse

x = torch.linspace(0.5, 1.5, 6, dtype=torch.float64)


def neighbours(x):
    return pad(x, (1, 0))[:-1] - 2 * x**2 + pad(x, (0, 1))[1:]


matrix = jacobian_sparse(neighbours)(x)
matrix

# %%
# The result is stored as compressed rows (CSR): the entries, the column of each entry, and where each row starts. As a
# dense matrix it is a band of width three.

matrix.to_dense()

# %%
# The places of the entries are the :term:`pattern` of the matrix. :func:`funcdiff.jacobian_pattern` returns the pattern
# and the number of passes, without the entries.

pattern = jacobian_pattern(neighbours, x)
pattern

# %%
# Check it by hand
# ----------------
# Now we do the same ourselves. Columns 0 and 3 have no row in common. Neither have columns 1 and 4, nor 2 and 5. For
# each pair, we make a vector with two ones. We multiply the Jacobian by these three vectors with ``jvp``.

from torch.func import jvp

seeds = torch.eye(3, dtype=x.dtype).repeat(1, 2)  # column j has colour j % 3
products = torch.stack([jvp(neighbours, (x,), (v,))[1] for v in seeds])
seeds

# %%
# We say that columns in the same group have the same *colour*, here 0, 1 or 2. Each row has at most one entry of each
# colour. So we find :math:`J_{ij}` in the product for the colour of column :math:`j`, at row :math:`i`.

by_hand = torch.zeros(6, 6, dtype=x.dtype)
for i, j in zip(pattern.rows, pattern.columns, strict=True):
    by_hand[i, j] = products[j % 3, i]

ones = torch.ones(5, dtype=x.dtype)
expected = torch.diag(-4 * x) + torch.diag(ones, 1) + torch.diag(ones, -1)
torch.testing.assert_close(by_hand, expected)
torch.testing.assert_close(matrix.to_dense(), expected)

# %%
# In the picture, the number of an entry is the pass that computes it. No row contains a number twice.

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
# A batch is another example. The rows of a batch are independent, so one pass serves all of them. A network on 8 rows
# needs as many passes as on one row. Each row of this Jacobian has 5 entries and each column 3, so reverse mode, which
# groups rows, needs the fewest passes.

weights = torch.randn(16, 5), torch.randn(3, 16)


def network(rows):
    return (rows @ weights[0].T).tanh() @ weights[1].T


of_batch = jacobian_pattern(network, torch.randn(8, 5))
assert of_batch.passes == 3  # 3 outputs in each row, fewer than the 5 inputs
of_batch

# %%
# Count
# -----
# Our next function lives on a grid in two dimensions. Two substances react and diffuse (the Brusselator). Each output
# depends on six inputs: the same substance at the point and at its four neighbours, and the other substance at the
# point.


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
# We double the side of the grid three times, so the number of inputs grows to 64 times. The number of passes hardly
# changes. It is larger than six, because the columns are not grouped in the best possible way.

from funcdiff import measure

grids = [torch.rand(2, N, N) for N in (6, 12, 24, 48)]
patterns = [jacobian_pattern(brusselator, grid) for grid in grids]
for found in patterns:
    print(f"{found.shape[1]:5} inputs, {found.nnz:6} entries, {found.passes} passes")
assert max(found.passes for found in patterns) <= 12

# %%
# This is the pattern for the smallest grid. It has four blocks. The two on the diagonal come from diffusion, and the
# other two from the reaction.

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
# What does this save? The dense matrix has far more entries than the sparse one, so it needs more memory as well. We
# count both on a grid of 24 by 24 points.

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
# Compare the peaks, the largest memory in use:

costs.claim("jacobian_sparse", smaller_peak_than="jacobian", by=5)

# %%
# Time
# ----
# With 1152 inputs, the dense recipe makes 1152 passes, and the sparse one as few as above. We time both. So that both
# return the same, we convert the sparse matrix to a dense one. The pattern is known from above, so no call finds it.

times = measure.compare(methods, y, rounds=12, budget=3.0)
times

# %%
# This is the gain:

times.claim("jacobian_sparse", faster_than="jacobian")

# %%
# The figure shows the spread of both times.

plot(times, title="A few passes are faster than one for each input")

# %%
# ``explain`` predicts both costs, without the conversion to a dense matrix, and for an idle machine. If the dense
# recipe were faster, it would say so.

explain(sparse, y)

# %%
# What goes wrong
# ---------------
# *One row is full.* All columns have an entry in this row, so no two of them can share a pass. The recipe notices the
# row and computes it separately, with one pass of reverse mode.


def with_total(x):
    return torch.cat([neighbours(x), x.exp().sum()[None]])


with_row = jacobian_pattern(with_total, torch.rand(50))
assert with_row.passes == 4
print(with_row)

# %%
# *The whole matrix is full.* Here the mean makes every output depend on every input. Nothing can be saved, and
# ``explain`` recommends the dense recipe.

centred = explain(jacobian_sparse(lambda x: x - x.mean()), torch.rand(50))
assert centred.recipe == "jacobian"
centred

# %%
# *The function branches on values.* Each branch has a pattern of its own. So each call finds the pattern again and
# checks the matrix with one more product. The result is right in both branches, but slow.


def branching(x):
    return x * x.roll(1) if x[0] > 1 else x * x.roll(2)


jacobian_of_branch = jacobian_sparse(branching)
for point in (x, x + 1):
    want = torch.func.jacrev(branching)(point)
    torch.testing.assert_close(jacobian_of_branch(point).to_dense(), want)
explain(jacobian_of_branch, x)

# %%
# *You pass a pattern that is too small.* You can pass a pattern that you know. If it lacks an entry, you get an error
# and no wrong numbers, because each result is checked with a product along a random direction.

try:
    jacobian_sparse(neighbours, pattern=torch.eye(6))(x)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("a pattern without the neighbours passed")

# %%
# Takeaway
# --------
# The number of passes depends on the fullest row or column, and not on the number of inputs. ``jacobian_sparse`` finds
# the pattern and the passes, and ``hessian_sparse`` does so for Hessians.
#
# * If every output depends on every input, use :func:`funcdiff.jacobian`.
# * If you need a Jacobian once and there are few inputs, the dense recipe is faster, because finding the pattern takes
#   time.
# * If the function branches on values, write the branch as ``torch.where``. Both branches then have one pattern.
# * If you call it repeatedly, keep the function that ``jacobian_sparse`` returns: it remembers the pattern.
