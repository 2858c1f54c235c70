"""Streaming decompression of gzip, bzip2, xz and Zstandard files; a truncated stream is an error.

One loop reads every format, and asks the decoder whether the stream ended. Python's own readers differ: some treat a
truncated file as a short one, or ignore data after the first stream. Concatenated streams are one text.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from teacher_dump.errors import DumpError

_BLOCK_BYTES = 8192
"""Compressed bytes that are decoded at a time: bounds the memory for a highly compressible file."""
_ERRORS = (zlib.error, OSError, lzma.LZMAError, ValueError, EOFError, zstandard.ZstdError)


def _zstd() -> Any:
    # A frame of unknown origin may require a large window.
    return zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()


_DECODERS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
    ".zst": _zstd,
}
SUFFIXES = tuple(_DECODERS)
_PADDED = (".gz", ".xz")
"""Formats that allow zero bytes between and after streams."""


def open_binary(file: Path) -> BinaryIO:
    """Open a file as a buffered binary stream, decompressed according to its suffix.

    Raises:
        DumpError: On opening or reading: the file cannot be read, is damaged, or ends before its stream does.
    """
    if file.suffix not in _DECODERS:
        return io.BufferedReader(_PlainFile(file))
    return io.BufferedReader(_DecompressedFile(file), buffer_size=1 << 17)


def cannot_read(file: Path, error: OSError) -> DumpError:
    """Return the error for a file that cannot be read."""
    return DumpError(f"{file}: cannot read ({error.strerror or error}); check the file and your permissions")


class _PlainFile(io.RawIOBase):
    """A file that raises DumpError where it cannot be read."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._path = file
        try:
            self._file = file.open("rb", buffering=0)
        except OSError as error:
            raise cannot_read(file, error) from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer) or 0
        except OSError as error:
            raise cannot_read(self._path, error) from None

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _DecompressedFile(io.RawIOBase):
    """The content of concatenated compressed streams."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._path = file
        self._source = _PlainFile(file)
        self._decoder: Any = _DECODERS[file.suffix]()
        self._compressed = b""  # read, but not decoded
        self._decoded = memoryview(b"")  # decoded, but not returned
        self._in_stream = True  # also for an empty file, which is truncated

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoded:
            if not self._compressed:
                self._compressed = self._source.read(_BLOCK_BYTES) or b""
            if not self._compressed:
                if self._in_stream:
                    raise DumpError(
                        f"{self._path}: the {self._path.suffix[1:]} stream is truncated; expected a whole file: fetch "
                        "or write it again"
                    )
                return 0
            self._decode()
        count = min(len(buffer), len(self._decoded))
        buffer[:count] = self._decoded[:count]
        self._decoded = self._decoded[count:]
        return count

    def _decode(self) -> None:
        if not self._in_stream:
            if self._path.suffix in _PADDED:
                self._compressed = self._compressed.lstrip(b"\0")
            if not self._compressed:
                return
            self._decoder, self._in_stream = _DECODERS[self._path.suffix](), True
        try:
            self._decoded = memoryview(self._decoder.decompress(self._compressed))
        except _ERRORS as error:
            raise DumpError(
                f"{self._path}: damaged {self._path.suffix[1:]} data ({error}); expected a whole file: fetch or write "
                "it again"
            ) from None
        self._in_stream = not self._decoder.eof
        self._compressed = self._decoder.unused_data if self._decoder.eof else b""

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
