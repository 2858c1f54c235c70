"""What can go wrong with a score that a person can mend?

Every error takes one string, so it survives a trip between processes, and says what was found, what was
expected and what to do. Bugs are not wrapped: they keep their traceback.
"""

from __future__ import annotations


class EvalError(ValueError):
    """Root of what a user can mend: bad data, a bad path, a missing part, a setting that does not fit."""
