"""The site's Sphinx extensions, and what only they need."""
