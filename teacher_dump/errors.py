"""Errors of a dump that the user can fix."""

from __future__ import annotations

from shards.errors import ShardError

DEAD_ENGINE_CODE = 75
"""Exit code after a crash of the engine: EX_TEMPFAIL of sysexits.h, "temporary failure, try again"."""


class DumpError(ShardError):
    """A model, corpus, machine or setting that does not fit. One string: found, expected, remedy."""


class DeadEngineError(DumpError):
    """The engine crashed, or its GPU is in an unusable state. The process has to exit, and its task is retried."""
