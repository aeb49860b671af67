"""The torch that runs, beside those that the tests run with; a newer one is no error."""

from __future__ import annotations

import warnings

import torch
from torch.torch_version import TorchVersion

OLDEST, NEWEST = "2.11", "2.15"  # as in noxfile.py, whose session `tests-torch` runs the tests with each

RUNNING = TorchVersion(torch.__version__)
_MINOR = ".".join(RUNNING.split(".")[:2])

# Before torch 2.13, the derivatives of torch.func are zero in inference mode.
INFERENCE_SILENCES = RUNNING < "2.13"

if TorchVersion(_MINOR) > NEWEST:
    warnings.warn(
        f"funcdiff was tested with torch {OLDEST} to {NEWEST}, and this is torch {_MINOR}. The automatic recipes leave "
        "out every recipe that is wrong in any version they know, and they check their first result. Test a recipe "
        "that you call by name with funcdiff.check_derivatives.",
        stacklevel=2,
    )
