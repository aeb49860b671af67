"""Fixtures of more than one file."""

import logging

import pytest


@pytest.fixture
def composed(caplog):
    """Whether Taylor mode was left, with the reasons."""
    caplog.set_level(logging.INFO, "funcdiff.taylor")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "funcdiff.taylor"]
