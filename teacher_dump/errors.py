"""What can go wrong with a dump that a person can mend?"""

from __future__ import annotations

from shards.errors import ShardError

DEAD_ENGINE_CODE = 75
"""Exit code of a process whose engine died: sysexits.h's EX_TEMPFAIL, "run it again"."""


class DumpError(ShardError):
    """A model, corpus, machine or setting that does not fit. One string: found, expected, what to do."""


class DeadEngineError(DumpError):
    """The engine is no more, or its GPU is in no state to go on: the process has to end, and its task is done again."""
