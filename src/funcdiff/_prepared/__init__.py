"""Derivatives prepared once: traced, simplified, guarded."""
