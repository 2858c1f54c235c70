"""Filters of prompts: licences, duplicates, benchmarks. The order decides under which reason a prompt is counted."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

from shards.format.messages import messages_json
from teacher_dump.conversations.settings import build_filters
from teacher_dump.corpus.document import Document, Drop
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.filters.base import Candidate
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts.prompt import RawPrompt, ResponsePrompt, conversation_text


class PromptFilter:
    """Decides which prompts are used. Counts and lists those that are not.

    Args:
        settings: Settings of the filters that apply to conversations.
        counts: Receives the number of prompts read, and of dropped ones by reason.
        drop_log: Receives the dropped prompts.

    Raises:
        DumpError: A benchmark is missing.
    """

    def __init__(self, settings: FilterSettings, counts: Counter[str], drop_log: DropLog) -> None:
        self._counts, self._drop_log = counts, drop_log
        self._filters = list(build_filters(settings))
        self._documents: set[str] = set()
        self._place_of: dict[str, str] = {}

    def __call__(self, raw_prompts: Iterable[RawPrompt]) -> Iterator[ResponsePrompt]:
        """Yield the prompts that are used.

        Raises:
            DumpError: Two prompts that are used have the same task_id.
        """
        for raw in raw_prompts:
            self._counts["prompts read"] += 1
            if raw.problem is not None:
                self._drop(raw, raw.problem, "")
                continue
            prompt = ResponsePrompt(
                task_id=raw.task_id,
                messages=messages_json(raw.messages),
                source=raw.source,
                path=raw.path,
                licence=raw.licence or "",
            )
            drop = self._decide(raw, prompt)
            if drop is not None:
                self._drop(raw, drop, prompt.messages)
                continue
            self._claim_id(prompt)
            yield prompt

    def drop(self, prompt: ResponsePrompt, reason: str, detail: str) -> None:
        """Count and list a prompt that a later step cannot use."""
        raw = RawPrompt(
            task_id=prompt.task_id, messages=(), source=prompt.source, path=prompt.path, licence=prompt.licence
        )
        self._drop(raw, Drop(reason, detail), prompt.messages)

    def _decide(self, raw: RawPrompt, prompt: ResponsePrompt) -> Drop | None:
        text = conversation_text(raw.messages)
        candidate = Candidate(_document(prompt, text), raw.licence)
        drop = next((drop for check in self._filters if (drop := check(candidate)) is not None), None)
        if drop is None and prompt.document in self._documents:
            drop = Drop("duplicate")
        self._documents.add(prompt.document)
        return drop

    def _claim_id(self, prompt: ResponsePrompt) -> None:
        place = f"{prompt.source} {prompt.path}"
        if (other := self._place_of.get(prompt.task_id)) is not None:
            raise DumpError(
                f"--prompts: found the task_id {prompt.task_id!r} at {other} and at {place}, expected a different one "
                "for each prompt; change it, or leave the column out"
            )
        self._place_of[prompt.task_id] = place

    def _drop(self, raw: RawPrompt, drop: Drop, messages: str) -> None:
        self._counts[f"dropped: {drop.reason}"] += 1
        document = Document(
            text="",
            source=raw.source,
            path=raw.path,
            licence=raw.licence or "",
            sha256=hashlib.sha256(messages.encode()).hexdigest(),
        )
        self._drop_log.add(document, drop)


def _document(prompt: ResponsePrompt, text: str) -> Document:
    return Document(text=text, source=prompt.source, path=prompt.path, licence=prompt.licence, sha256=prompt.document)
