"""Checks of a function's derivatives, by every recipe."""
