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
        f"funcdiff was tested with torch {OLDEST} to {NEWEST}, and this is torch {_MINOR}. jacobian, hessian and the "
        "other automatic functions check their first result. Before you rely on a function with a mode in its name, "
        "such as jacobian_forward, test it with funcdiff.check_derivatives.",
        stacklevel=2,
    )
