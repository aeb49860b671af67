"""torch's layers by what they do in training mode: their common classes have private names."""

from __future__ import annotations

from torch import nn

Dropout = nn.modules.dropout._DropoutNd
BatchNorm = nn.modules.batchnorm._BatchNorm
