"""How tutorials run and appear."""
