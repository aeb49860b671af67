"""Pages that are computed from the package or from kept data."""
