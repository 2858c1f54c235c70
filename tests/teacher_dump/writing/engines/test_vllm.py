"""Tests of writing with vLLM: the real engine on this machine's processor, and its behaviour when it dies."""

from __future__ import annotations

import dataclasses
import importlib.util
import multiprocessing
from collections.abc import Iterator

import pytest

from teacher_dump.errors import DeadEngineError
from teacher_dump.writing.engines.base import WriterConfig
from teacher_dump.writing.task import ResponseRequest, WritingTask
from tests.teacher_dump.writing.engines.test_hf import respond, sampled
from tests.teacher_dump.writing.helpers import request

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


def tasks_of(requests: list[ResponseRequest], size: int) -> list[tuple[WritingTask, list[ResponseRequest]]]:
    """Return the requests in tasks of `size`."""
    groups = [requests[start : start + size] for start in range(0, len(requests), size)]
    return [
        (WritingTask(name=f"t{number}", prompts=tuple(r.prompt for r in group), samples=1), group)
        for number, group in enumerate(groups)
    ]


def test_greedy_and_sampled_responses_and_a_dead_engine(
    writer_config: WriterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test, because the engine starts for a minute."""
    from teacher_dump.writing.engines import vllm

    monkeypatch.setattr(vllm, "RUNNING", {"cpu": 4})
    config = dataclasses.replace(writer_config, temperature=0.0)
    writer = vllm.VllmWriter(config)
    tokens: list[tuple[int, int]] = []
    try:
        requests = [request([0, *range(3, 3 + n)], task_id=str(n)) for n in range(1, 12)]
        found = dict(_by_name(writer, tasks_of(requests, 3), tokens))
        assert sum(answers for _, answers in tokens) == len(requests)
        for number, (task, group) in enumerate(tasks_of(requests, 3)):
            expected = respond(config, group)
            assert [r.request for r in found[task.name]] == group
            assert [r.ids for r in found[task.name]] == [r.ids for r in expected], number
            for ours, theirs in zip(found[task.name], expected, strict=True):
                assert ours.text == theirs.text
                assert ours.finish_reason == theirs.finish_reason
                assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-2)
        writer._config = writer_config  # sampled: the engine takes its settings with each request
        first = dict(_by_name(writer, tasks_of(sampled(), 2), tokens))
        again = dict(_by_name(writer, tasks_of(list(reversed(sampled())), 5), tokens))
        ids = {(r.request.prompt.task_id, r.request.index): r.ids for group in first.values() for r in group}
        assert len(set(ids.values())) > 6
        assert ids == {(r.request.prompt.task_id, r.request.index): r.ids for group in again.values() for r in group}
        for process in multiprocessing.active_children():
            process.kill()
        with pytest.raises(DeadEngineError, match="run the same command again"):
            list(_by_name(writer, tasks_of(requests, 3), tokens))
    finally:
        writer.close()


def _by_name(
    writer: object, tasks: list[tuple[WritingTask, list[ResponseRequest]]], tokens: list[tuple[int, int]]
) -> Iterator[tuple[str, list[object]]]:
    for task, responses in writer.write(tasks, lambda *counts: tokens.append(counts)):  # type: ignore[attr-defined]
        yield task.name, list(responses)
