"""Errors that the user of a training run can fix.

Each takes one string that says what was found, what was expected and what to do. The command line prints these, and
`shards.errors.ShardError`, as one line with exit code 1. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class TrainError(ValueError):
    """Root of these errors."""


class StudentError(TrainError):
    """The student is unavailable, or does not fit the shards."""


class CheckpointError(TrainError):
    """The output folder holds something other than this run, or its disk is full."""


class Interrupted(TrainError):
    """The run was asked to stop and has saved its state; the same command resumes it."""
