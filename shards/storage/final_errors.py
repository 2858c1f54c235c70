"""Exceptions of a store that another attempt would meet again, as messages for the user."""

from __future__ import annotations

from collections.abc import Iterator

from shards.errors import IncompleteCacheError, ShardError, StoreError

_HUB_REFUSALS = {"RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError", "DisabledRepoError"}
"""Exceptions of huggingface_hub on a whole repository. By name, because the package is an extra."""


def final_error(root: str, name: str, where: str, error: Exception) -> ShardError | None:
    """Return the error to raise in place of another attempt; None where an attempt may succeed.

    Args:
        root: Path or URL of the store.
        name: Name of the file.
        where: Name of the place, for the message.
        error: What the filesystem raised.
    """
    for cause in _causes(error):
        if type(cause).__name__ in _HUB_REFUSALS:
            return StoreError(
                f"{root}: found no such repository or revision, or no access to it; check the address and your login "
                "('hf auth login'), or create the repository on the hub ('hf repos create'; hf://datasets/OWNER/NAME "
                "is a data set, hf://OWNER/NAME a model)"
            )
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return IncompleteCacheError(
            f"{root}: found no {name}, expected a complete cache; run teacher-dump again or fetch it"
        )
    if isinstance(error, PermissionError) or _status(error) in (401, 403):
        return StoreError(f"{where}: {_one_line(error)}; check your access to it")
    if _status(error) == 400:
        return StoreError(f"{where}: {_one_line(error)}; the server refuses this and would again")
    if isinstance(error, NotImplementedError):
        return StoreError(f"{where}: this kind of URL can only be read; choose a folder or bucket")
    if isinstance(error, MemoryError):
        return StoreError(
            f"{where}: not enough memory on this machine to read it; close other programs, or use a machine with more"
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: Exception) -> int | None:
    """Return the status of a web server's reply: aiohttp's errors have it, httpx's have the response."""
    for cause in _causes(error):
        status = getattr(cause, "status", None) or getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
