"""Written responses on disk: complete or absent per task, and one file when all are complete.

    responses.jsonl            every response, one JSON object per line, in the order of the prompts; written last
    writing/plan.json          the settings that decide the responses, counts, and the digest of prompts.jsonl
    writing/dropped.jsonl      the prompts that are not used, with the reason
    writing/prompts.jsonl      the prompts; deleted when responses.jsonl is complete
    writing/000000-ab12.jsonl  the responses of a task, and a last line with their number and digest; deleted likewise

A task's file gets its name when all its bytes are durable. The first writer of a name wins: a task that two workers
write is there once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from shards.format.manifest import Writer
from shards.format.schema import canonical_json
from shards.storage.atomic import atomic_writer, cannot_write, sync_path, write_atomic
from shards.storage.temp_files import temp_path
from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts.prompt import ResponsePrompt
from teacher_dump.writing.task import WritingTask, WrittenResponse

RESPONSES_NAME = "responses.jsonl"
WRITING_FOLDER = "writing"
_PLAN, _PROMPTS = "plan.json", "prompts.jsonl"
_COPY_BYTES = 1 << 20


class _PartDamaged(Exception):
    """The file of a task is missing or damaged."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class ResponseStore:
    """The responses in a folder.

    Args:
        out: Folder of the cache.
    """

    def __init__(self, out: Path) -> None:
        self.responses = out / RESPONSES_NAME
        self.folder = out / WRITING_FOLDER

    @property
    def is_complete(self) -> bool:
        """Whether every response is in responses.jsonl."""
        return self.responses.is_file()

    def read_plan(self) -> dict[str, Any] | None:
        """Return the plan, None if it is missing or damaged."""
        try:
            plan = dict(json.loads((self.folder / _PLAN).read_bytes()))
            return plan if plan.pop("sha256") == _digest(plan) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def save_plan(
        self,
        identity: Mapping[str, Any],
        prompts: Sequence[ResponsePrompt],
        counts: Counter[str],
        *,
        longest_prompt: int,
    ) -> dict[str, Any]:
        """Write the prompts, then the plan, which marks the list as complete, and return the plan.

        Args:
            identity: The settings that decide the responses.
            prompts: The prompts, in order.
            counts: Prompts read, and prompts dropped by reason.
            longest_prompt: Tokens of the longest prompt.

        Raises:
            StoreError: The disk is full or read-only.
        """
        content = b"".join(canonical_json(asdict(prompt)) + b"\n" for prompt in prompts)
        write_atomic(self.folder / _PROMPTS, content)
        plan = {
            "identity": dict(identity),
            "counts": dict(sorted(counts.items())),
            "prompts": len(prompts),
            "longest_prompt": longest_prompt,
            "prompts_sha256": hashlib.sha256(content).hexdigest(),
        }
        write_atomic(self.folder / _PLAN, canonical_json({**plan, "sha256": _digest(plan)}))
        return plan

    def read_prompts(self, plan: Mapping[str, Any]) -> list[ResponsePrompt] | None:
        """Return the prompts of a plan, None if they are missing or damaged."""
        try:
            content = (self.folder / _PROMPTS).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != plan["prompts_sha256"]:
            return None
        return [ResponsePrompt(**json.loads(line)) for line in content.splitlines()]

    def is_written(self, task: WritingTask) -> bool:
        """Return whether the responses of a task are there and undamaged, in its file or in responses.jsonl."""
        return self.is_complete or _response_bytes(self.folder / task.name, task) is not None

    def save(self, task: WritingTask, responses: Sequence[WrittenResponse], writer: Writer) -> None:
        """Write the file of a task; a sound file that another worker wrote is kept.

        Args:
            task: The task.
            responses: Its responses, in the order of prompts and indices.
            writer: Who wrote them, the same for every line.

        Raises:
            StoreError: The disk is full or read-only.
        """
        assert len(responses) == task.num_answers
        body = b"".join(canonical_json({**r.to_dict(), "writer": asdict(writer)}) + b"\n" for r in responses)
        footer = {"answers": len(responses), "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        path = self.folder / task.name
        temporary = temp_path(path)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(body + canonical_json(footer) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if not self.is_written(task):
                os.replace(temporary, path)
                sync_path(self.folder)
        except OSError as error:
            raise cannot_write(path, error) from None
        finally:
            with suppress(OSError):
                temporary.unlink()

    def complete(self, tasks: Iterable[WritingTask]) -> None:
        """Write responses.jsonl from the files of all tasks, and delete these.

        Raises:
            StoreError: The disk is full or read-only.
            DumpError: A file of a task is damaged; it is deleted, so that the next start writes it again.
        """
        try:
            with atomic_writer(self.responses) as output:
                for task in tasks:
                    self._append(task, output)
        except _PartDamaged as damaged:
            if not self.is_complete:  # otherwise another worker joined and deleted the files
                damaged.path.unlink(missing_ok=True)
                raise DumpError(
                    f"{damaged.path}: its bytes changed after they were written; run the same command again"
                ) from None
        self.remove_parts()

    def _append(self, task: WritingTask, output: BinaryIO) -> None:
        """Copy the responses of a task.

        Raises:
            _PartDamaged: Its file is missing or damaged.
        """
        path = self.folder / task.name
        length = _response_bytes(path, task)
        if length is None:
            raise _PartDamaged(path)
        with path.open("rb") as file:
            while length:
                block = file.read(min(length, _COPY_BYTES))
                if not block:
                    raise _PartDamaged(path)
                output.write(block)
                length -= len(block)

    def remove_parts(self) -> None:
        """Delete the files that only an incomplete set of responses needs. A kill may have left some."""
        keep = (_PLAN, "dropped.jsonl")
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the responses of a complete store.

        Raises:
            DumpError: A line is damaged.
        """
        with self.responses.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield dict(json.loads(line))
                except (ValueError, TypeError, RecursionError):
                    raise DumpError(
                        f"{self.responses} line {number}: not a response; delete the file and {self.folder}, and run "
                        "again"
                    ) from None


def _response_bytes(path: Path, task: WritingTask) -> int | None:
    """Return the length of the responses in a task's file, None if it is missing, damaged or of another task."""
    try:
        content = path.read_bytes()
        start = content.rindex(b"\n", 0, len(content) - 1) + 1
        footer = json.loads(content[start:])
        body = memoryview(content)[:start]
        is_sound = (
            footer["answers"] == task.num_answers
            and footer["bytes"] == start
            and footer["sha256"] == hashlib.sha256(body).hexdigest()
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return start if is_sound else None


def _digest(plan: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(plan)).hexdigest()
