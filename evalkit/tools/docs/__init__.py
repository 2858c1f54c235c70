"""Offline search in the documentation of Python packages."""
