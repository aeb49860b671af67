"""The recipes: each is its formula, and nothing else."""
