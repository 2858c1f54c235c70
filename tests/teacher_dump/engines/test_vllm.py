"""The vLLM engine on this side of vLLM: what it refuses, and that it notices a process that was killed."""

from __future__ import annotations

import multiprocessing
import queue
import time
from pathlib import Path

import pytest
import torch

from teacher_dump.engines.vllm import Answer, VllmEngine, next_answer
from teacher_dump.errors import DeadEngineError, DumpError
from tests.teacher_dump.engines.test_blockwise_logits import teaching

LOG = Path("/tmp/engine.log")


def test_an_answer_comes_through_while_the_engine_lives_and_after() -> None:
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    try:
        answers.put([])
        assert next_answer(answers, [process], log=LOG) == []
        process.kill()
        process.join()
        answers.put([])  # made before the engine was killed
        assert next_answer(answers, [process], log=LOG) == []
        with pytest.raises(DeadEngineError, match=r"ended with code -9; its output is in /tmp/engine\.log"):
            next_answer(answers, [process], log=LOG)
    finally:
        process.kill()


def test_layers_shared_out_without_gpus_are_refused_before_the_engine_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DumpError, match=r"^--pipeline-parallel-size 2: found no GPU"):
        VllmEngine(teaching(tmp_path, pipeline_parallel_size=2))
