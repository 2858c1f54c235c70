"""The errors that a user can mend, and the one line that is shown of any other.

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


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    said = str(error).strip().splitlines()
    return said[0].strip() if said else type(error).__name__
