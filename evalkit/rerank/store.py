"""The evidence file: outputs of calls, addressed by everything that decides them.

The file is an Arrow IPC stream that grows by chunks, so any Arrow reader opens it. The key of a row digests the
program (without comments and layout), the source of the call, the limits, the Python version and the version of the
sandbox. A run therefore executes only what no earlier run has, and a change of samples, tests or inputs never uses a
wrong output.

Guarantees: a chunk is complete or absent. One that a killed run left half is cut off when the file is opened next, and
one that does not match its digest is not used. Either costs the outputs of one chunk, which are computed again.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import IO

import pyarrow as pa

from evalkit.errors import EvalError
from evalkit.outputs.files import replace_file
from evalkit.outputs.paths import locked
from evalkit.rerank.call_output import CallOutput
from evalkit.sandbox.execute import CallLimits
from evalkit.sandbox.program_key import program_key
from evalkit.sandbox.verdict_cache import CACHE_VERSION

EVIDENCE_VERSION = 1
"""Version of the columns and of the properties of values that they hold."""

SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(16), nullable=False),
        pa.field("program", pa.binary(16), nullable=False),
        pa.field("call", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("exception", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("number", pa.float64(), nullable=False),
        pa.field("truth", pa.int8(), nullable=False),
        pa.field("cpu_s", pa.float64(), nullable=False),
    ],
    metadata={"evidence_version": str(EVIDENCE_VERSION)},
)
"""Columns of the file: `key`, what it digests for readers (`program`, `call`), and the fields of `CallOutput`."""

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
        self._pending: list[tuple[bytes, bytes, str, CallOutput]] = []
        self._written = time.monotonic()
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> EvidenceStore:
        """Lock and read the file.

        Raises:
            EvalError: It is no evidence file, cannot be read or written, or another process writes it.
        """
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._stack.enter_context(locked(self._path))
                end = self._read(self._path)
                self._file = self._stack.enter_context(self._path.open("r+b"))
                self._file.truncate(end)
                self._file.seek(end)
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
        chunk = _chunk_bytes(self._pending, self._version)
        try:
            self._file.write(chunk)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._pending.clear()

    def _read(self, path: Path) -> int:
        """Read all complete chunks; return the offset of their end."""
        if not path.exists() or path.stat().st_size == 0:
            replace_file(path, SCHEMA.serialize().to_pybytes())
        unused: Counter[str] = Counter()
        with pa.OSFile(str(path)) as source:
            reader = _reader(path, source)
            end, is_cut = source.tell(), False
            while not is_cut:
                try:
                    batch, metadata = reader.read_next_batch_with_custom_metadata()
                except StopIteration:
                    break
                except (pa.ArrowInvalid, OSError):
                    is_cut = True
                    continue
                end = source.tell()
                if problem := self._problem(batch, metadata):
                    unused[problem] += batch.num_rows
                else:
                    self._load(batch)
        if is_cut:
            size = path.stat().st_size - end
            self._note(f"{path}: the last {size:,} bytes are no complete chunk: cut off and computed again")
        for problem, num_rows in unused.items():
            self._note(f"{path}: {num_rows:,} outputs are {problem}: computed again")
        return int(end)

    def _problem(self, batch: pa.RecordBatch, metadata: Mapping[bytes, bytes] | None) -> str:
        """Return why a chunk is not used; "" if it is."""
        fields = {name.decode(): text.decode() for name, text in (metadata or {}).items()}
        if fields.get("blake2b") != _batch_digest(batch):
            return "damaged"
        version = fields.get("version", "")
        return "" if version == self._version else f"of {version}, not {self._version}"

    def _load(self, batch: pa.RecordBatch) -> None:
        keys = batch.column("key").to_pylist()
        columns = [batch.column(name).to_pylist() for name in _OUTPUT_COLUMNS]
        for key, values in zip(keys, zip(*columns, strict=True), strict=True):
            self._outputs[key] = _interned(CallOutput._make(values))


def _reader(path: Path, source: pa.NativeFile) -> pa.RecordBatchStreamReader:
    """Return a reader of the chunks in an evidence file.

    Raises:
        EvalError: It is none, or has other columns.
    """
    try:
        reader = pa.ipc.open_stream(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise EvalError(f"{path}: is no evidence file; name another file, or remove this one") from error
    if not reader.schema.equals(SCHEMA, check_metadata=True):
        raise EvalError(
            f"{path}: has other columns than evidence of version {EVIDENCE_VERSION}; name another file, or remove "
            "this one"
        )
    return reader


def _interned(output: CallOutput) -> CallOutput:
    """Return the output with one object for each distinct text: most outputs of a problem are equal."""
    outcome, digest, kind, exception, text, number, truth, cpu_s = output
    intern = sys.intern
    if math.isnan(number):
        number = math.nan
    return CallOutput(
        intern(outcome), intern(digest), intern(kind), intern(exception), intern(text), number, truth, cpu_s
    )


def _chunk_bytes(rows: list[tuple[bytes, bytes, str, CallOutput]], version: str) -> bytes:
    """Return rows as the message of one record batch."""
    keys, programs, calls, outputs = zip(*rows, strict=True)
    columns = [keys, programs, [_valid_text(call) for call in calls], *zip(*outputs, strict=True)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    batch = pa.record_batch(arrays, schema=SCHEMA)
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    writer.write_batch(batch, custom_metadata={"version": version, "blake2b": _batch_digest(batch)})
    end = sink.tell()
    writer.close()
    start = len(SCHEMA.serialize().to_pybytes())
    content: bytes = sink.getvalue().to_pybytes()[start:end]
    return content


def _valid_text(text: str) -> str:
    """Return `text` with lone surrogates escaped: Arrow holds UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _batch_digest(batch: pa.RecordBatch) -> str:
    """Return the digest of a batch's values and offsets; no column has nulls."""
    digest = hashlib.blake2b(digest_size=16)
    for column in batch.columns:
        for buffer in column.buffers()[1:]:
            digest.update(memoryview(buffer))
    return digest.hexdigest()


def _unusable(path: Path, error: OSError) -> EvalError:
    return EvalError(
        f"{path}: evidence cannot be read or written ({error.strerror or error}); name a file in a writable folder"
    )
