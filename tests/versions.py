"""Tests of what only some releases of torch can do."""

import pytest
import torch
from torch.torch_version import TorchVersion


def since(version, before):
    """A mark that skips a test below torch `version`, for the reason `before`."""
    return pytest.mark.skipif(TorchVersion(torch.__version__) < version, reason=f"before torch {version}, {before}")


def until(version, now):
    """A mark that skips a test from torch `version` on, for the reason `now`."""
    return pytest.mark.skipif(TorchVersion(torch.__version__) >= version, reason=f"from torch {version} on, {now}")
