"""Which recipe: plans, their costs and budgets, how they are kept and explained."""
