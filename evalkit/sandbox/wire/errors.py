"""The exception for a value that has no plain form; both modules of value forms raise it."""

from __future__ import annotations


class UnsupportedValueError(Exception):
    """A value without a plain form: an object of a user's class, a function, a structure that contains itself."""
