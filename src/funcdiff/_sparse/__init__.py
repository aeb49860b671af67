"""Which output depends on which input, and how few passes tell the whole matrix."""
