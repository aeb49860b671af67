"""The recipes, by what they compute: what one must pass they all must."""

import funcdiff as fd

JACOBIANS = [
    fd.jacobian_loop,
    fd.jacobian_batched_grad,
    fd.jacobian_reverse,
    fd.jacobian_forward,
    fd.jacobian_taylor,
    fd.jacobian,
]
HESSIANS = [
    fd.hessian_forward_over_reverse,
    fd.hessian_reverse_over_reverse,
    fd.hessian_reverse_over_forward,
    fd.hessian_forward_over_forward,
    fd.hessian_double_backward,
    fd.hessian_taylor,
    fd.hessian,
]
PRODUCTS = [
    fd.hvp_forward_over_reverse,
    fd.hvp_reverse_over_reverse,
    fd.hvp_reverse_over_forward,
    fd.hvp_double_backward,
    fd.vhp,
    fd.hvp,
]
