"""What can go wrong with a cache that a person can mend?

Every error takes one string, so it survives a trip between processes, and says what was found, what was
expected and what to do. Bugs are not wrapped: they keep their traceback.
"""

from __future__ import annotations


class ShardError(ValueError):
    """Root of what a user can mend: bad data, a bad path, a setting that does not fit."""


class CorruptShardError(ShardError):
    """Bytes differ from what the manifest or the file itself promises."""


class TokensRemovedError(ShardError):
    """The cache was published without its text: rows can be read once `logit-shards hydrate` put it back."""


class FormatVersionError(ShardError):
    """The file is of a format version that this code does not read."""


class IncompleteCacheError(ShardError):
    """The folder holds no complete cache: there is no manifest, or a shard that it names is missing."""


class StoreError(ShardError):
    """The place where the bytes lie could not be reached, or has no room left."""
