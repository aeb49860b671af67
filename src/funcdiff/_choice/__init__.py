"""Which recipe is right and fast for a function: a sketch of it, what each candidate would cost, and the plan."""
