"""All that depends on torch's private API, or on its version."""
