"""One calling convention: arguments, options, copies, directions."""
