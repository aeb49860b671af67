"""Measured, checked recipes for Jacobians, Hessians and Hessian-vector products in PyTorch."""

from funcdiff._automatic.batches import batch_hessian, batch_jacobian
from funcdiff._automatic.cache import clear_plans
from funcdiff._automatic.choice import hessian, jacobian
from funcdiff._automatic.curvature import fisher_operator, gauss_newton_operator, gauss_newton_product
from funcdiff._automatic.explaining import explain
from funcdiff._automatic.gram import gram_matrix
from funcdiff._automatic.laplacians import bilaplacian, laplacian
from funcdiff._automatic.linear import jacobian_operator
from funcdiff._automatic.products import hvp, hvp_operator
from funcdiff._automatic.sparse import hessian_sparse, jacobian_sparse
from funcdiff._automatic.sparse_patterns import hessian_pattern, jacobian_pattern
from funcdiff._automatic.summed import batch_hessian_summed, batch_jacobian_summed
from funcdiff._automatic.taylor import hessian_diagonal, hessian_taylor, jacobian_taylor
from funcdiff._calling.modules import module_function, ravel
from funcdiff._calling.operator import Operator
from funcdiff._prepared.preparing import Prepared, prepare
from funcdiff._torch.messages import RefusedError
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
from funcdiff.recipes.loaders import over_batches
from funcdiff.recipes.products import (
    hvp_double_backward,
    hvp_forward_over_reverse,
    hvp_reverse_over_forward,
    hvp_reverse_over_reverse,
    vhp,
)
from funcdiff.recipes.spectrum import SpectralDensity, spectral_density
from funcdiff.recipes.traces import Estimate, diagonal_estimate, trace_estimate

__all__ = [
    "Estimate",
    "Operator",
    "Prepared",
    "RefusedError",
    "SpectralDensity",
    "batch_hessian",
    "batch_hessian_summed",
    "batch_jacobian",
    "batch_jacobian_summed",
    "bilaplacian",
    "check_batch_independence",
    "check_derivatives",
    "clear_plans",
    "diagonal_estimate",
    "explain",
    "fisher_operator",
    "gauss_newton_operator",
    "gauss_newton_product",
    "gram_matrix",
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
    "jacobian_operator",
    "jacobian_pattern",
    "jacobian_reverse",
    "jacobian_sparse",
    "jacobian_taylor",
    "laplacian",
    "module_function",
    "over_batches",
    "prepare",
    "ravel",
    "spectral_density",
    "trace_estimate",
    "vhp",
]
