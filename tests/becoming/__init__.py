"""Functions that become another, by what they hold, what they name, and the layers that they call."""

from becoming import held, layers, named
from becoming.two import BECOMES_ANOTHER

__all__ = ["BECOMES_ANOTHER", "held", "layers", "named"]
