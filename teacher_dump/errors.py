"""What can go wrong with a dump that a person can mend?"""

from __future__ import annotations

from shards.errors import ShardError


class DumpError(ShardError):
    """A model, corpus, machine or setting that does not fit. One string: found, expected, what to do."""
