"""Directives, roles and checks for any page."""
