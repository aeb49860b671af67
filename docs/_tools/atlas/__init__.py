"""The derivative atlas: every operator of torch under every recipe."""
