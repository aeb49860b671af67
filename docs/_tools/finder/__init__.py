"""The recipe finder: the package's cost formulas for a network of given sizes."""
