"""The benchmark: every goal and the peers side by side."""
