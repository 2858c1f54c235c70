"""Summary of writing: what was read, dropped, written and cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from teacher_dump.config import DumpConfig
from teacher_dump.writing.run import WritingOutcome
from teacher_dump.writing.store import ResponseStore


def writing_lines(outcome: WritingOutcome, config: DumpConfig) -> Iterator[str]:
    """Yield the lines that `teacher-dump` prints after writing."""
    store = ResponseStore(config.out)
    if not outcome.is_complete:
        yield (
            f"worker {config.worker}: wrote {outcome.new_tasks} tasks; {outcome.open_tasks} tasks of other workers are "
            "open; run the same command again when they are written, to record them"
        )
        return
    if outcome.new_tasks == 0:
        yield f"{store.responses}: already complete; nothing was written again"
        return
    if outcome.reused_tasks:
        yield f"reused {outcome.reused_tasks} finished writing tasks, wrote {outcome.new_tasks}"
    for name, count in sorted(outcome.counts.items(), key=lambda item: (not item[0].startswith("prompts"), item[0])):
        yield f"{count:>12,}  {name}"
    yield from response_lines(store)


def response_lines(store: ResponseStore) -> Iterator[str]:
    """Yield the lines about complete responses: number, tokens, and how many ended by themselves."""
    counts: Counter[str] = Counter()
    for line in store.lines():
        counts["responses"] += 1
        counts["tokens"] += len(line["ids"])
        counts[line["finish_reason"]] += 1
    yield (
        f"{store.responses}: {counts['responses']:,} responses, {counts['tokens']:,} tokens; {counts['stop']:,} ended "
        f"by themselves, {counts['length']:,} were cut at their largest length"
    )
