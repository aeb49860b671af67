"""Figures of a GPU beside those of the same machine's processor: `nox -s gpu`."""
