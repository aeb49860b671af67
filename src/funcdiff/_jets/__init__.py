"""Jets: a value with its first and second derivatives, and the rule of each torch operation."""
