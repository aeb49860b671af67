"""Measured, checked recipes for Jacobians, Hessians and Hessian-vector products in PyTorch."""
