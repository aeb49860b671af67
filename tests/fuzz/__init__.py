"""Random functions, differentiated by the automatic recipes and judged by plain autograd: `nox -s fuzz`."""
