"""Write tasks with a loaded engine, and count what is written."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from teacher_dump.engines.errors import engine_errors
from teacher_dump.writing.engines.base import ResponseWriter, TaskRequests
from teacher_dump.writing.job import WritingJob
from teacher_dump.writing.task import WritingTask


class WritingProgress:
    """Responses and tokens written so far, and their rate.

    Args:
        num_answers: Responses to write.
    """

    def __init__(self, num_answers: int) -> None:
        self._num_answers = num_answers
        self.tokens = 0
        self.answers = 0
        self._begin = self._last = time.monotonic()

    def on_tokens(self, tokens: int, answers: int) -> None:
        """Count new tokens and finished responses."""
        self.tokens += tokens
        self.answers += answers
        self._last = time.monotonic()

    def status(self) -> str:
        """Return one line: responses and tokens, and the rate after the first tokens."""
        rate = f", {self.tokens / self._seconds:,.0f} per s" if self.tokens else ""
        return f"{self.answers:,} of {self._num_answers:,} responses, {self.tokens:,} tokens{rate}"

    def summary(self) -> str:
        """Return one line about everything that was written."""
        return (
            f"wrote {self.answers:,} responses, {self.tokens:,} tokens in {self._seconds:,.0f} s, "
            f"{self.tokens / self._seconds:,.0f} per s"
        )

    @property
    def _seconds(self) -> float:
        return max(1e-9, self._last - self._begin)


def write_tasks(
    job: WritingJob, tasks: Iterable[WritingTask], writer: ResponseWriter, progress: WritingProgress
) -> int:
    """Write tasks with a loaded engine, store each as it becomes complete, and return their number."""
    requests: Iterator[TaskRequests] = ((task, job.tokens.requests(task, job.config.seed)) for task in tasks)
    num_tasks = 0
    with engine_errors(job.engine):
        for task, responses in writer.write(requests, progress.on_tokens):
            job.store.save(task, responses, job.writer)
            num_tasks += 1
    return num_tasks
