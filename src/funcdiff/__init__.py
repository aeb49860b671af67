"""Measured, checked recipes for Jacobians, Hessians and Hessian-vector products in PyTorch."""

from funcdiff.batches import batch_hessian, batch_jacobian
from funcdiff.checks import check_derivatives
from funcdiff.choice import explain, hessian, hvp, jacobian
from funcdiff.hessians import (
    hessian_double_backward,
    hessian_forward_over_forward,
    hessian_forward_over_reverse,
    hessian_reverse_over_forward,
    hessian_reverse_over_reverse,
)
from funcdiff.independence import check_batch_independence
from funcdiff.jacobians import jacobian_batched_grad, jacobian_forward, jacobian_loop, jacobian_reverse
from funcdiff.modules import module_function, ravel
from funcdiff.products import (
    hvp_double_backward,
    hvp_forward_over_reverse,
    hvp_operator,
    hvp_reverse_over_forward,
    hvp_reverse_over_reverse,
    vhp,
)
from funcdiff.summed import batch_hessian_summed, batch_jacobian_summed
from funcdiff.taylor import hessian_diagonal, hessian_taylor, jacobian_taylor, laplacian

__all__ = [
    "batch_hessian",
    "batch_hessian_summed",
    "batch_jacobian",
    "batch_jacobian_summed",
    "check_batch_independence",
    "check_derivatives",
    "explain",
    "hessian",
    "hessian_diagonal",
    "hessian_double_backward",
    "hessian_forward_over_forward",
    "hessian_forward_over_reverse",
    "hessian_reverse_over_forward",
    "hessian_reverse_over_reverse",
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
    "jacobian_reverse",
    "jacobian_taylor",
    "laplacian",
    "module_function",
    "ravel",
    "vhp",
]
