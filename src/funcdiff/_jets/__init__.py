"""Jets: a value with its first and second derivatives, and the rule of each torch operation."""

from funcdiff._jets import activations as activations  # each module of rules registers them when it is imported
