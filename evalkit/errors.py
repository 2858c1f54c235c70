"""Errors that a user can fix.

Each error takes one string, so that it survives pickling between processes. The string names what was found, what was
expected and how to fix it. Other exceptions are bugs and keep their traceback.
"""

from __future__ import annotations


class EvalError(ValueError):
    """Root of the errors that a user can fix: bad data, a bad path, a missing package, a wrong setting."""
