"""The evidence file: outputs of calls, addressed by everything that decides them.

The file is an Arrow IPC stream that grows by chunks, so any Arrow reader opens it. The key of a row digests the
program (without comments and layout), the source of the call, the limits, the Python version and the version of the
sandbox. A run therefore executes only what no earlier run has, and a change of samples, tests or inputs never uses a
wrong output.

Guarantees: a chunk is complete or absent. When the file is opened, what is no complete chunk or does not match its
digest is removed, wherever it is, and a note says so: the end that a killed run left half is cut off, and damage
elsewhere is left out. Other chunks stay. A changed byte costs the outputs of one chunk, which are computed again.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import IO

import pyarrow as pa

from evalkit.errors import EvalError
from evalkit.outputs.files import replace_file, write_all
from evalkit.outputs.paths import locked
from evalkit.rerank.call_output import CallOutput
from evalkit.rerank.evidence_file import EVIDENCE_VERSION, HEAD, Row, chunk_bytes, chunks, head_end
from evalkit.sandbox.execute import CallLimits
from evalkit.sandbox.program_key import program_key
from evalkit.sandbox.verdict_cache import CACHE_VERSION

_OUTPUT_COLUMNS = CallOutput._fields
_CHUNK_ROWS = 8192
_CHUNK_S = 5.0
"""Longest time for which finished outputs are only in memory, in seconds."""
_NOT_STORED = "infra_error"
"""Outcome that is the machine's failure: the next run computes it again."""


def sandbox_version() -> str:
    """Return the versions that decide what a call returns."""
    return f"python {platform.python_version()}, sandbox {CACHE_VERSION}, evidence {EVIDENCE_VERSION}"


def program_digest(program: str) -> bytes:
    """Return the digest of a program without its comments and layout: 16 bytes."""
    return hashlib.blake2b(program_key(program).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class EvidenceStore:
    """Outputs of calls, in memory and in a file. Use it as a context manager."""

    def __init__(self, path: Path | None, *, limits: CallLimits, note: Callable[[str], None]) -> None:
        """Prepare a store; `__enter__` reads the file.

        Args:
            path: The evidence file, which need not exist; None keeps outputs in memory only.
            limits: Limits of the calls.
            note: Receives a line about chunks that are not used.
        """
        self._path, self._note, self.limits = path, note, limits
        self._version = sandbox_version()
        context = f"{self._version} {astuple(limits)}"
        self._context = hashlib.blake2b(context.encode(), digest_size=16).digest()
        self._outputs: dict[bytes, CallOutput] = {}
        self._pending: list[Row] = []
        self._written = time.monotonic()
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        self._end = 0  # of the last chunk in the file

    def __enter__(self) -> EvidenceStore:
        """Lock and read the file.

        Raises:
            EvalError: It is no evidence file, cannot be read or written, or another process writes it.
        """
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._stack.enter_context(locked(self._path))
                self._end = self._read(self._path)
                # Without a buffer, a chunk that does not fit the disk is not written again when the file is closed.
                self._file = self._stack.enter_context(self._path.open("r+b", buffering=0))
                self._file.truncate(self._end)
            except OSError as error:
                self._stack.close()
                raise _unusable(self._path, error) from error
            except EvalError:
                self._stack.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what is only in memory, also after an error or an interrupt."""
        try:
            self.flush()
        finally:
            self._stack.close()

    def __len__(self) -> int:
        return len(self._outputs)

    def key(self, program: bytes, call: str) -> bytes:
        """Return the key of an output.

        Args:
            program: A result of `program_digest`.
            call: Source of an expression or statement.
        """
        content = program + call.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, digest_size=16, key=self._context).digest()

    def get(self, key: bytes) -> CallOutput | None:
        """Return the output under `key`, or None."""
        return self._outputs.get(key)

    def add(self, program: bytes, call: str, output: CallOutput) -> None:
        """Add an output; it is in the file a few seconds later."""
        key = self.key(program, call)
        self._outputs[key] = _interned(output)
        if self._file is not None and output.outcome != _NOT_STORED:
            self._pending.append((key, program, call, output))
            if len(self._pending) >= _CHUNK_ROWS or time.monotonic() - self._written > _CHUNK_S:
                self.flush()

    def flush(self) -> None:
        """Write the outputs that are only in memory.

        Raises:
            EvalError: The file cannot be written.
        """
        self._written = time.monotonic()
        if not self._pending or self._file is None or self._path is None:
            return
        chunk = chunk_bytes(self._pending, self._version)
        try:
            self._file.seek(self._end)  # behind it is what an earlier attempt on a full disk left
            write_all(self._file, chunk)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._end += len(chunk)
        self._pending.clear()

    def _read(self, path: Path) -> int:
        """Read all chunks; return the offset of their end."""
        if not path.exists() or path.stat().st_size == 0:
            replace_file(path, HEAD)
        content = path.read_bytes()
        begin = head_end(path, content)
        head, kept, unused = content[:begin] or HEAD, list[tuple[int, int]](), Counter[str]()
        end, num_damaged = begin, 0
        for chunk in chunks(content, begin):
            num_damaged += chunk.start - end
            end = chunk.end
            kept.append((chunk.start, end))
            if chunk.version == self._version:
                self._load(chunk.batch)
            else:
                unused[chunk.version] += chunk.batch.num_rows
        if num_damaged:
            self._note(f"{path}: {num_damaged:,} bytes are damaged: left out and computed again")
            replace_file(path, head + b"".join(content[first:last] for first, last in kept))
        if rest := len(content) - end:
            self._note(f"{path}: the last {rest:,} bytes are no complete chunk: cut off and computed again")
        for version, num_rows in unused.items():
            self._note(f"{path}: {num_rows:,} outputs are of {version}, not {self._version}: computed again")
        return len(head) + sum(last - first for first, last in kept)

    def _load(self, batch: pa.RecordBatch) -> None:
        keys = batch.column("key").to_pylist()
        columns = [batch.column(name).to_pylist() for name in _OUTPUT_COLUMNS]
        for key, values in zip(keys, zip(*columns, strict=True), strict=True):
            self._outputs[key] = _interned(CallOutput._make(values))


def _interned(output: CallOutput) -> CallOutput:
    """Return the output with one object for each distinct text: most outputs of a problem are equal."""
    outcome, digest, kind, exception, text, number, truth, cpu_s = output
    intern = sys.intern
    if math.isnan(number):
        number = math.nan
    return CallOutput(
        intern(outcome), intern(digest), intern(kind), intern(exception), intern(text), number, truth, cpu_s
    )


def _unusable(path: Path, error: OSError) -> EvalError:
    return EvalError(
        f"{path}: evidence cannot be read or written ({error.strerror or error}); name a file in a writable folder"
    )
