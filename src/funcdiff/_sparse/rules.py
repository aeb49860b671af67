"""Which rule each operation has."""

from __future__ import annotations

from funcdiff._sparse.elements import (
    Rule,
    along,
    constant,
    everything,
    moved,
    over,
    pointwise,
    put,
    same,
    scattered,
    sent,
    so_far,
)
from funcdiff._sparse.matrices import attention, by_matrix, multiplied
from funcdiff._sparse.windows import by_plane, convolved, convolved_back, pooled, pooled_back


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
    **_named(pointwise, "native_dropout rrelu_with_noise _prelu_kernel polar where masked_fill"),
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
    **dict.fromkeys(
        [
            *("avg_pool2d_backward", "avg_pool3d_backward"),
            *("max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward"),
        ],
        pooled_back,
    ),
    **_named(
        by_plane,
        "_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward upsample_linear1d_backward "
        "upsample_bilinear2d_backward upsample_bicubic2d_backward upsample_trilinear3d_backward "
        "_upsample_bilinear2d_aa _upsample_bilinear2d_aa_backward",
    ),
    **_named(
        by_matrix,
        "linalg_inv_ex linalg_cholesky_ex _linalg_solve_ex _linalg_det _linalg_slogdet linalg_qr _linalg_eigh "
        "_linalg_svd linalg_lu_factor_ex linalg_solve_triangular triangular_solve cholesky_inverse cholesky_solve "
        "linalg_matrix_exp linalg_eig linalg_eigvals linalg_lu",
    ),
}
