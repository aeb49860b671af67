"""Measured, checked recipes for Jacobians, Hessians and Hessian-vector products in PyTorch."""

from funcdiff._automatic.batches import batch_hessian, batch_jacobian
from funcdiff._automatic.cache import clear_plans
from funcdiff._automatic.choice import hessian, jacobian
from funcdiff._automatic.explaining import explain
from funcdiff._automatic.products import hvp, hvp_operator
from funcdiff._automatic.sparse import hessian_sparse, jacobian_sparse
from funcdiff._automatic.sparse_patterns import hessian_pattern, jacobian_pattern
from funcdiff._automatic.summed import batch_hessian_summed, batch_jacobian_summed
from funcdiff._automatic.taylor import hessian_diagonal, hessian_taylor, jacobian_taylor, laplacian
from funcdiff._calling.modules import module_function, ravel
from funcdiff._prepared.preparing import Prepared, prepare
from funcdiff.checks.derivatives import check_derivatives
from funcdiff.recipes.hessians import (
    hessian_double_backward,
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
)
from funcdiff.recipes.independence import check_batch_independence
from funcdiff.recipes.jacobians import jacobian_batched_grad, jacobian_forward, jacobian_loop, jacobian_reverse
from funcdiff.recipes.products import (
    hvp_double_backward,
    hvp_forward_over_reverse,
    hvp_reverse_over_forward,
    hvp_reverse_over_reverse,
    vhp,
)

__all__ = [
    "Prepared",
    "batch_hessian",
    "batch_hessian_summed",
    "batch_jacobian",
    "batch_jacobian_summed",
    "check_batch_independence",
    "check_derivatives",
    "clear_plans",
    "explain",
    "hessian",
    "hessian_diagonal",
    "hessian_double_backward",
    "hessian_forward_over_forward",
    "hessian_forward_over_reverse",
    "hessian_pattern",
    "hessian_reverse_over_forward",
    "hessian_reverse_over_reverse",
    "hessian_sparse",
    "hessian_taylor",
    "hvp",
    "hvp_double_backward",
    "hvp_forward_over_reverse",
    "hvp_operator",
    "hvp_reverse_over_forward",
    "hvp_reverse_over_reverse",
    "jacobian",
    "jacobian_batched_grad",
    "jacobian_forward",
    "jacobian_loop",
    "jacobian_pattern",
    "jacobian_reverse",
    "jacobian_sparse",
    "jacobian_taylor",
    "laplacian",
    "module_function",
    "prepare",
    "ravel",
    "vhp",
]
