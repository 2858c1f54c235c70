"""Transfers of files: what an upload is, and how many bytes of it are done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import fsspec

OnBytes = Callable[[int], None]
"""Progress callback: gets the number of bytes transferred since the last call, negative after a failed attempt."""


def ignore_bytes(_: int) -> None:
    """Do nothing: the progress callback for transfers that nobody watches."""


class Upload(Protocol):
    """`Store.upload`, or a function that does the same."""

    def __call__(self, path: Path, name: str, *, on_bytes: OnBytes = ignore_bytes) -> None:
        """Copy a local file to the store."""


class Meter(fsspec.callbacks.Callback):  # type: ignore[misc]  # fsspec has no types
    """Report transferred bytes. A new attempt takes back the bytes of the failed one."""

    def __init__(self, on_bytes: OnBytes) -> None:
        super().__init__()
        self._on_bytes = on_bytes
        self._counted = 0

    def relative_update(self, inc: int = 1) -> None:
        """Add to the count."""
        self._counted += inc
        self._on_bytes(inc)

    def absolute_update(self, value: int) -> None:
        """Set the count."""
        self.relative_update(value - self._counted)

    def restart(self) -> None:
        """Set the count to 0."""
        self.absolute_update(0)
