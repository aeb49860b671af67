"""Measured, checked recipes for Jacobians, Hessians and Hessian-vector products in PyTorch."""

from funcdiff.checks import check_derivatives

__all__ = ["check_derivatives"]
