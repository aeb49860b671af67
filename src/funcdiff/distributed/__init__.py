"""Derivatives over the processes of `torch.distributed`, whose data, rows or columns lie on several machines."""

from funcdiff.distributed.batches import batch_hessian, batch_jacobian
from funcdiff.distributed.derivatives import hessian, jacobian
from funcdiff.distributed.products import hvp_operator

__all__ = ["batch_hessian", "batch_jacobian", "hessian", "hvp_operator", "jacobian"]
