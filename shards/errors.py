"""Errors that a user can fix, and a short text for any other error.

Every error takes one string, so it survives pickling between processes. The string says what was found, what was
expected and what to do. Bugs are not wrapped: they keep their traceback.
"""

from __future__ import annotations


class ShardError(ValueError):
    """Root of the errors that a user can fix: damaged data, a wrong path, a setting that does not fit."""


class CorruptShardError(ShardError):
    """Bytes that differ from what the manifest or the file itself states."""


class TokensRemovedError(ShardError):
    """Reading rows of a cache that was published without its tokens. `logit-shards hydrate` puts them back."""


class FormatVersionError(ShardError):
    """A file of a format version that this code does not support."""


class IncompleteCacheError(ShardError):
    """A directory without a complete cache: no manifest, or a shard of it is missing."""


class StoreError(ShardError):
    """A place that cannot be reached, or has no room left."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if there is no message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
