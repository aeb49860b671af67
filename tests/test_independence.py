"""Do rows mix: the check itself."""

import pytest
import torch

from funcdiff import batch_jacobian_summed, check_batch_independence


def test_captured_parameters_that_require_grad_draw_no_warning():
    layer = torch.nn.Linear(3, 2, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64)
    assert check_batch_independence(layer, x) < 1e-12
    for check in (check_batch_independence, lambda func, x: batch_jacobian_summed(func)(x)):
        with pytest.raises(ValueError, match="rows that do not depend on each other"):
            check(lambda x: layer(x) - layer(x).mean(0), x)
