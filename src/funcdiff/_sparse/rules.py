"""For each operation, which elements of its operands an element of its result is computed from.

A rule is given what is known so far, the operation and the tensors that it wrote, and returns the sets of their
elements. It may return more than there is, never less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product as every
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from funcdiff._sparse import sets
from funcdiff._sparse.sets import Ints, Sets
from funcdiff._torch.intercept import Operation
from funcdiff._torch.trees import tree_leaves, tree_map


class Known(Protocol):
    """What rules ask for; see `tracer.Trace`."""

    n: int

    def of(self, x: Any) -> Sets | None:
        """The sets of a tensor's elements; None if they are constants."""

    def values(self, x: Tensor, name: str) -> bool:
        """Whether the values of a tensor may be used."""


Found = Sequence[Sets | None]
Rule = Callable[[Known, Operation, Sequence[Tensor]], Found]


def constant(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """New tensors that have only their shape from the operand."""
    return [None] * len(targets)


def everything(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element of the results may depend on all inputs that the operands depend on."""
    whole = _union(known, [_all(known, x) for x in operation.tensors], ())
    return [whole and whole.broadcast(x.shape) for x in targets]


def pointwise(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from one element of each operand, which broadcast."""
    parts = [known.of(x) for x in operation.tensors]
    return [_union(known, parts, x.shape) for x in targets]


def same(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """The elements of one operand in their order; of those written to, the other."""
    found = known.of(operation.tensors[-1 if operation.written else 0])
    if found is not None and found.ids.size == targets[0].numel():
        found = found.reshape(targets[0].shape)
    return [found and found.broadcast(targets[0].shape)]


def moved(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from one element of one operand: the operation moves the ids of the sets as it moves numbers."""
    given = operation.given
    indices = [x for x in operation.tensors if not x.is_floating_point() and not x.is_complex()]
    if not all(known.values(x, operation.name) for x in indices):
        return everything(known, operation, targets)
    floating = [x for x in tree_leaves(given) if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())]
    parts = [known.of(x) or Sets(np.zeros(tuple(x.shape), np.int64), sets.Table.singletons(0)) for x in floating]
    ids, table = sets.joined(parts)
    stand_ins = {
        id(x): torch.tensor(i, dtype=torch.float64, device=x.device) for x, i in zip(floating, ids, strict=True)
    }
    changed = tree_map(lambda leaf: stand_ins.get(id(leaf), leaf), given)
    changed |= {name: 0 for name in ("value", "fill_value") if isinstance(given.get(name), (int, float))}
    results = [x for x in tree_leaves(operation.run(changed)) if x.is_floating_point()]
    return [Sets(x.cpu().numpy().astype(np.int64), table) for x in results]


def over(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """One element from all along some axes."""
    given = operation.given
    found = known.of(given["self"])
    if found is None:
        return everything(known, operation, targets)
    whole = sets.reduced(found, _axes(given.get("dim"), found.ids.ndim), known.n)
    return [whole.reshape(x.shape) for x in targets]


def along(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from all along some axes, which stay or have another length."""
    given = operation.given
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in operation.tensors))
    found = _union(known, [known.of(x) for x in operation.tensors], shape)
    if found is None:
        return [None] * len(targets)
    whole = sets.reduced(found, _axes(given.get("dim", -1), len(shape)), known.n)
    return [whole.reshape(x.shape) if whole.ids.size == x.numel() else whole.broadcast(x.shape) for x in targets]


def so_far(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from those up to its place along an axis."""
    given = operation.given
    found = known.of(given["self"])
    if found is None or not found.ids.ndim:
        return [found] * len(targets)
    axis = given["dim"]
    length = found.ids.shape[axis]
    if found.ids.size * (length + 1) // 2 > sets.LIMIT:
        raise sets.TooManyError(f"{found.ids.size * (length + 1) // 2:,}")
    later, earlier = np.tril_indices(length)
    places = np.moveaxis(np.arange(found.ids.size).reshape(found.ids.shape), axis, -1)
    ids = np.moveaxis(found.ids, axis, -1)
    whole = sets.united([places[..., later]], [Sets(ids[..., earlier], found.table)], found.ids.shape, known.n)
    return [whole] * len(targets)


def sent(
    places: Callable[[Tensor, dict[str, Any]], Tensor], source: str, target: str = "self", *, replace: bool = False
) -> Rule:
    """A rule for elements that an index sends to places: `places` moves the numbers of the places.

    What is sent to one place is united, as autograd sends the gradient back to all of it, also where only one stays.
    With `replace`, what was there before is gone.
    """

    def rule(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
        given = operation.given
        indices = [x for x in operation.tensors if not x.is_floating_point()]
        if not all(known.values(x, operation.name) for x in indices):
            return everything(known, operation, targets)
        (y,) = targets
        own, here = known.of(given.get(target)), torch.arange(y.numel(), device=y.device).reshape(y.shape)
        parts, numbers = [], []
        to = places(here, given).cpu().numpy()
        if own is not None and replace:
            own = Sets(own.ids.copy(), own.table)
            own.ids.flat[to.ravel()] = 0
        if (new := known.of(given.get(source))) is not None:
            if operation.name.startswith("scatter"):
                new = Sets(new.ids[tuple(map(slice, to.shape))], new.table)
            parts.append(new.broadcast(to.shape))
            numbers.append(to)
        if own is not None:
            parts.append(own)
            numbers.append(here.cpu().numpy())
        return [sets.united(numbers, parts, y.shape, known.n)] if parts else [None]

    return rule


def put(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Elements set, or added, at an index."""
    replace = not operation.given["accumulate"]
    return sent(lambda here, given: here[tuple(_indices(given))], "values", replace=replace)(known, operation, targets)


def scattered(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Elements set at an index along an axis."""
    if operation.given.get("reduce"):
        return everything(known, operation, targets)
    rule = sent(lambda here, given: here.gather(given["dim"], given["index"]), "src", replace=True)
    return rule(known, operation, targets)


def multiplied(left: str, right: str, bias: str | None = None) -> Rule:
    """A rule for products of matrices, or of stacks of them."""

    def rule(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
        given = operation.given
        (y,) = targets
        a, b = given[left], given[right]
        rows, columns = known.of(a), known.of(b)
        parts = [known.of(given[bias]) if bias else None]
        shape = (*y.shape, *(1,) * (b.ndim == 1))  # of a vector one column
        if a.ndim == 1:
            shape = (1, *shape)
        if rows is not None:
            rows = rows.reshape((1, -1)) if a.ndim == 1 else rows
            parts.append(_reshaped(_through(known, operation, rows, b, columns is None, shape), y.shape))
        if columns is not None:
            columns = columns.reshape((-1, 1)) if b.ndim == 1 else columns
            turned = Sets(columns.ids.swapaxes(-1, -2), columns.table)
            back = (*shape[:-2], shape[-1], shape[-2])
            other = a.mT if a.ndim > 1 else a
            mixed = _through(known, operation, turned, other, rows is None, back)
            parts.append(_reshaped(Sets(mixed.ids.swapaxes(-1, -2), mixed.table), y.shape))
        return [_union(known, parts, y.shape)]

    return rule


def _through(
    known: Known, operation: Operation, rows: Sets, matrix: Tensor, constant: bool, shape: Sequence[int]
) -> Sets:
    """The sets of `rows @ matrix`, as far as they come from the rows: where the matrix has zeros, none."""
    whole = sets.reduced(rows, (rows.ids.ndim - 1,), known.n)
    if not constant or not matrix.numel() or matrix.ndim == 1:
        return whole.broadcast(shape)
    if matrix.layout is not torch.strided:
        k, j = matrix.detach().to_sparse().coalesce().indices().cpu().numpy()
    elif matrix.ndim > 2 or bool((matrix != 0).all()):
        return whole.broadcast(shape)
    else:
        k, j = (matrix.detach() != 0).nonzero(as_tuple=True)
        k, j = k.cpu().numpy(), j.cpu().numpy()
    count = int(np.prod(shape[:-1], dtype=np.int64))
    if rows.ids.ndim > 2 or count * len(k) > sets.LIMIT or not known.values(matrix, operation.name):
        return whole.broadcast(shape)
    places = np.arange(count)[:, None] * shape[-1] + j
    return sets.united([places], [Sets(rows.ids.reshape(count, -1)[:, k], rows.table)], shape, known.n)


def convolved(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """A convolution: each element from a window of the input, without the zeros of a constant kernel."""
    given, (y,) = operation.given, targets
    x, weight, bias = known.of(given["input"]), known.of(given["weight"]), known.of(given["bias"])
    channels = (1, -1, *(1,) * (y.ndim - 2))
    parts = [bias and bias.reshape(channels)]
    if weight is not None:
        parts.append(_of_kernel(known, weight, given).reshape(channels))
    if x is not None:
        windows = _windows(given["input"], given)
        kernel = given["weight"]
        links = _links(known, operation, kernel, weight is None)
        parts.append(_gathered(known, x, windows, links, y.shape, given))
    return [_union(known, parts, y.shape)]


def convolved_back(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """The gradients of a convolution: of the input by the same windows, of the kernel from whole channels."""
    given = operation.given
    grad, kernel = known.of(given["grad_output"]), known.of(given["weight"])
    wanted = iter(targets)
    found: list[Sets | None] = []
    space = tuple(range(2, given["grad_output"].ndim))
    if given["output_mask"][0]:
        target = next(wanted)
        parts = [_all(known, given["weight"])]
        if grad is not None:
            windows = _windows(given["input"], given)
            links = _links(known, operation, given["weight"], kernel is None)
            parts.append(_scattered(known, grad, windows, links, target.shape, given))
        found.append(_union(known, parts, target.shape))
    if given["output_mask"][1]:
        target = next(wanted)
        parts = [_all(known, given["input"])]
        if grad is not None:
            whole = sets.reduced(grad, (0, *space), known.n)
            first = (-1, 1, *(1,) * len(space)) if not given["transposed"] else None
            parts.append(whole.reshape(first) if first else _all(known, given["grad_output"]))
        found.append(_union(known, parts, target.shape))
    if given["output_mask"][2]:
        target = next(wanted)
        found.append(sets.reduced(grad, (0, *space), known.n).reshape(target.shape) if grad is not None else None)
    return found


def pooled(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each element from a window of its own channel."""
    given, y = operation.given, targets[0]
    x = given["self"]
    dims = int(operation.name.split("pool")[1][0])
    found = known.of(x)
    if found is None or given.get("ceil_mode"):
        return everything(known, operation, targets)

    def each(value: Any) -> list[int]:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return values * dims if len(values) == 1 else values

    kernel = each(given["kernel_size"])
    shape = (1, *x.shape) if x.ndim == dims + 1 else tuple(x.shape)
    given = {
        "stride": each(given["stride"] or kernel),
        "padding": each(given["padding"]),
        "dilation": each(given.get("dilation", 1)),
        "transposed": False,
        "output_padding": [0] * dims,
        "groups": shape[1],
    }
    like = x.detach().reshape(shape)
    windows = _windows(like, {**given, "weight": like.new_empty((shape[1], 1, *kernel))})
    links = [(k, None) for k in range(math.prod(kernel))]
    whole = _gathered(known, found.reshape(shape), windows, links, windows[0].shape, given)
    return [whole.reshape(y.shape)]


def by_matrix(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each matrix of a stack from the whole matrices at its place in the operands."""
    stacks = [x.shape[:-2] for x in operation.tensors]
    if len(set(stacks)) > 1 or any(x.shape[: len(stacks[0])] != stacks[0] for x in targets):
        return everything(known, operation, targets)
    parts = []
    for x in operation.tensors:
        found = known.of(x)
        if found is not None:
            parts.append(sets.reduced(found, (x.ndim - 2, x.ndim - 1), known.n).reshape(stacks[0]))
    whole = _union(known, parts, stacks[0])
    depth = len(stacks[0])
    return [whole and whole.reshape((*stacks[0], *(1,) * (x.ndim - depth))).broadcast(x.shape) for x in targets]


def attention(known: Known, operation: Operation, targets: Sequence[Tensor]) -> Found:
    """Each query from itself and all keys and values of its head."""
    given = operation.given
    if (
        known.of(given.get("attn_mask"))
        or known.of(given.get("attn_bias"))
        or given["query"].shape[1] != given["key"].shape[1]
    ):
        return everything(known, operation, targets)
    parts = []
    for name in ("query", "key", "value"):
        found = known.of(given[name])
        axes = (3,) if name == "query" else (2, 3)
        parts.append(found and sets.reduced(found, axes, known.n))
    whole = _union(known, parts, (*targets[0].shape[:3], 1))
    return [whole and whole.reshape(whole.ids.shape[: x.ndim]).broadcast(x.shape) for x in targets[:2]] + [None] * len(
        targets[2:]
    )


def _all(known: Known, x: Tensor) -> Sets | None:
    found = known.of(x)
    return found and sets.reduced(found, range(found.ids.ndim), known.n).reshape(())


def _union(known: Known, parts: Sequence[Sets | None], shape: Sequence[int]) -> Sets | None:
    present = [part for part in parts if part is not None]
    return sets.elementwise(present, tuple(shape), known.n) if present else None


def _reshaped(part: Sets, shape: Sequence[int]) -> Sets:
    return part.reshape(tuple(shape))


def _axes(dim: Any, count: int) -> tuple[int, ...]:
    """Axes from 0; all where none is named."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return tuple(range(count))
    many = dim if isinstance(dim, (list, tuple)) else [dim]
    return tuple(axis % count for axis in many) if count else ()


def _indices(given: dict[str, Any]) -> list[Any]:
    return [slice(None) if index is None else index for index in given["indices"]]


# Windows. A kernel with a single one moves the numbers of the input's elements to where a convolution reads them.


def _windows(x: Tensor, given: dict[str, Any]) -> list[Ints]:
    """For each entry of a kernel, and each channel of the input: the number + 1 of the element read, 0 beside it."""
    shape = tuple(given["weight"].shape[2:])
    channels = x.shape[1]
    numbers = torch.arange(1, x.numel() + 1, dtype=torch.float64).reshape(x.shape)
    found = []
    for entry in every(*map(range, shape)):
        one = torch.zeros((channels, 1, *shape), dtype=torch.float64)
        place: Any = (slice(None), 0, *entry)
        one[place] = 1
        read = torch.ops.aten.convolution(
            numbers,
            one,
            None,
            given["stride"],
            given["padding"],
            given["dilation"],
            given["transposed"],
            given["output_padding"],
            channels,
        )
        found.append(read.numpy().astype(np.int64))
    return found


Links = Sequence[tuple[int, Any]]  # an entry of the kernel, and which channels it connects; None for all of a group


def _links(known: Known, operation: Operation, kernel: Tensor, constant: bool) -> Links:
    """The entries of a kernel, without its zeros if it is constant: (number of the entry, its matrix of channels)."""
    flat = kernel.detach().reshape(*kernel.shape[:2], -1)
    if not constant or bool((flat != 0).all()) or not known.values(kernel, operation.name):
        return [(k, None) for k in range(flat.shape[2])]
    nonzero = (flat != 0).cpu().numpy()
    return [(k, nonzero[:, :, k]) for k in range(flat.shape[2]) if nonzero[:, :, k].any()]


def _pairs(links: Links, windows: Sequence[Ints], shape: Sequence[int], given: dict[str, Any]) -> tuple[Ints, Ints]:
    """Places in the output and numbers in the input that go together.

    A group counts as one channel of the output where no kernel tells its channels apart.
    """
    groups, found = given["groups"], []
    places = np.arange(math.prod(shape)).reshape(shape)
    batch, space = shape[0], shape[2:]
    for k, connected in links:
        numbers = windows[k].reshape(batch, groups, -1, *space)
        if connected is None:
            found.append(np.broadcast_arrays(places[:, :, None], numbers))
            continue
        wide, narrow = shape[1] // groups, numbers.shape[2]
        for o, i in every(range(shape[1]), range(narrow)):
            group = o // wide
            if connected[(group * narrow + i, o % wide) if given["transposed"] else (o, i)]:
                found.append((places[:, o], numbers[:, group, i]))
    total = sum(numbers.size for _, numbers in found)
    if total > sets.LIMIT:
        raise sets.TooManyError(f"{total:,}")
    empty = np.empty(0, np.int64)
    to, read = (np.concatenate([empty, *(pair[side].ravel() for pair in found)]) for side in (0, 1))
    return to[read > 0], read[read > 0] - 1


def _gathered(
    known: Known, x: Sets, windows: Sequence[Ints], links: Links, shape: Sequence[int], given: dict[str, Any]
) -> Sets:
    """The sets of a convolution's output."""
    groups = given["groups"]
    apart = any(connected is not None for _, connected in links)
    few = (shape[0], shape[1] if apart else groups, *shape[2:])
    places, numbers = _pairs(links, windows, few, given)
    found = sets.united([places], [Sets(x.ids.ravel()[numbers], x.table)], few, known.n)
    return Sets(np.repeat(found.ids, shape[1] // few[1], 1), found.table)


def _scattered(
    known: Known, grad: Sets, windows: Sequence[Ints], links: Links, shape: Sequence[int], given: dict[str, Any]
) -> Sets:
    """The sets of the gradient by a convolution's input."""
    if all(connected is None for _, connected in links):
        batch, channels, *space = grad.ids.shape
        grouped = grad.reshape((batch, given["groups"], channels // given["groups"], *space))
        grad = sets.reduced(grouped, (2,), known.n).reshape((batch, given["groups"], *space))
    places, numbers = _pairs(links, windows, grad.ids.shape, given)
    return sets.united([numbers], [Sets(grad.ids.ravel()[places], grad.table)], shape, known.n)


def _of_kernel(known: Known, weight: Sets, given: dict[str, Any]) -> Sets:
    """A set for each channel of the output: all entries of its kernel."""
    if given["transposed"]:
        whole = sets.reduced(weight, range(weight.ids.ndim), known.n)
        return whole.broadcast((1, *whole.ids.shape[1:]))
    return sets.reduced(weight, range(1, weight.ids.ndim), known.n)


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    """The rule for operations and for their forms that write in place."""
    return {name + suffix: rule for name in names.split() for suffix in ("", "_")}


STILL = frozenset(
    ("squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_", "swapdims_")
)  # another look at one memory
RULES: dict[str, Rule] = {
    **_named(
        constant,
        "zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_empty "
        "new_full new_empty_strided zero bernoulli uniform normal",
    ),
    **_named(same, "_to_copy copy fill lift lift_fresh alias_copy view_copy _reshape_copy detach_copy _reshape_alias"),
    **_named(pointwise, "native_dropout rrelu_with_noise _prelu_kernel polar where"),
    **_named(
        moved,
        "roll flip index _unsafe_index index_select gather take cat stack constant_pad_nd repeat tril triu diag_embed "
        "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
        "slice_scatter select_scatter diagonal_scatter slice_backward select_backward "
        "diagonal_backward masked_scatter index_fill unfold_copy permute_copy transpose_copy expand_copy "
        "select_copy slice_copy split_copy split_with_sizes_copy unbind_copy squeeze_copy unsqueeze_copy t_copy "
        "diagonal_copy as_strided_copy pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest1d "
        "upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d embedding im2col "
        "rot90 block_diag",
    ),
    **_named(
        over,
        "sum mean amax amin max min prod var std var_mean std_mean logsumexp linalg_vector_norm norm median nanmedian "
        "nansum aminmax mode kthvalue nanmean",
    ),
    **_named(
        along,
        "_softmax _log_softmax _softmax_backward_data _log_softmax_backward_data sort topk _fft_c2c _fft_r2c _fft_c2r "
        "_safe_softmax",
    ),
    **_named(
        attention,
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention",
    ),
    **_named(so_far, "cumsum cumprod logcumsumexp cummax cummin"),
    **_named(sent(lambda here, given: here.gather(given["dim"], given["index"]), "src"), "scatter_add scatter_reduce"),
    **_named(sent(lambda here, given: here.index_select(given["dim"], given["index"]), "source"), "index_add"),
    **_named(
        sent(lambda here, given: here.unfold(given["dim"], given["size"], given["step"]), "grad_in", "grad_in_"),
        "unfold_backward",
    ),
    **_named(sent(lambda here, given: here[given["indices"]], "grad_output", ""), "embedding_dense_backward"),
    **_named(scattered, "scatter"),
    **_named(
        sent(lambda here, given: here.index_select(given["dim"], given["index"]), "source", replace=True), "index_copy"
    ),
    **_named(everything, "as_strided_scatter max_unpool2d max_unpool3d"),
    **_named(put, "index_put _index_put_impl _unsafe_index_put"),
    "mm": multiplied("self", "mat2"),
    "bmm": multiplied("self", "mat2"),
    "mv": multiplied("self", "vec"),
    "dot": multiplied("self", "tensor"),
    "vdot": multiplied("self", "other"),
    "addmm": multiplied("mat1", "mat2", "self"),
    "addmm_": multiplied("mat1", "mat2", "self"),
    "baddbmm": multiplied("batch1", "batch2", "self"),
    "baddbmm_": multiplied("batch1", "batch2", "self"),
    "addmv": multiplied("mat", "vec", "self"),
    "addmv_": multiplied("mat", "vec", "self"),
    "_sparse_mm": multiplied("sparse", "dense"),
    "_sparse_addmm": multiplied("mat1", "mat2", "self"),
    "convolution": convolved,
    "convolution_backward": convolved_back,
    **dict.fromkeys(
        ["avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"], pooled
    ),
    **_named(
        by_matrix,
        "linalg_inv_ex linalg_cholesky_ex _linalg_solve_ex _linalg_det _linalg_slogdet linalg_qr _linalg_eigh "
        "_linalg_svd linalg_lu_factor_ex linalg_solve_triangular triangular_solve cholesky_inverse cholesky_solve "
        "linalg_matrix_exp linalg_eig linalg_eigvals linalg_lu",
    ),
}
