"""The exception that both modules of value forms raise."""

from __future__ import annotations


class UnsupportedValueError(Exception):
    """A value that has no plain form: a user's class, a function, a structure that contains itself."""
