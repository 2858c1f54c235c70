"""What can go wrong with a training run that a person can mend?

Every error takes one string and says what was found, what was expected and what to do. The command line turns
these, and `shards.errors.ShardError`, into one line and exit code 1; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class TrainError(ValueError):
    """Root of what a user can mend: a student that does not fit, a folder that is taken, a full disk."""


class StudentError(TrainError):
    """The student is unavailable, or does not fit the shards."""


class CheckpointError(TrainError):
    """The output folder holds something else than this run, or has no room."""


class Interrupted(TrainError):
    """The run was asked to stop and has saved what it had; the same command continues it."""
