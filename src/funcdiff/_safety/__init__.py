"""What is known to be wrong, and how we know."""
