"""Tests of generation with vLLM: a process that dies, and answers of a real engine."""

from __future__ import annotations

import multiprocessing
import queue
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from evalkit.generation.vllm import _watch
from tests.evalkit.generation.answers import TEXTS, answers_of, generate, load, protocol


class EngineDeadError(Exception):
    """Stands for vLLM's: importing vLLM takes too long for a fast test."""


@pytest.fixture
def _fake_vllm_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vllm", "vllm.v1", "vllm.v1.engine", "vllm.v1.engine.exceptions"):
        module = ModuleType(name)
        module.__dict__["EngineDeadError"] = EngineDeadError
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("_fake_vllm_errors")
def test_the_next_step_reports_a_killed_engine_process() -> None:
    outputs: queue.Queue[Exception] = queue.Queue()  # what vLLM's client waits for, and raises where it is an error
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    try:
        _watch(SimpleNamespace(engine_core=SimpleNamespace(outputs_queue=outputs)), [process])
        with pytest.raises(queue.Empty):
            outputs.get(timeout=0.5)
        process.kill()
        assert isinstance(outputs.get(timeout=60), EngineDeadError)
    finally:
        process.kill()


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_generates_the_same_greedy_answers(checkpoint: Path):
    pytest.importorskip("vllm")
    ours = {answer.prompt.task_id: answer.completion for answer in generate(checkpoint, TEXTS)}
    assert {answer.prompt.task_id: answer.completion for answer in generate(checkpoint, TEXTS, engine="vllm")} == ours


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_delivers_finished_answers_and_samples_by_seed(checkpoint: Path):
    """More requests than places, of prompts that repeat. A stop string cuts the same texts, and changes no other."""
    pytest.importorskip("vllm")
    texts = [text for text in TEXTS for _ in range(5)]
    sampled = {"temperature": 0.8, "top_p": 0.95}
    with load(checkpoint, engine="vllm", stop=(), **sampled) as engine:
        free = {answer.prompt.task_id: answer for answer in answers_of(engine, texts)}
        assert sorted(free) == sorted(f"T/{index}" for index in range(len(texts)))
        written = [answer.completion for answer in free.values()]
        stop = next(c for c in sorted(set("".join(written))) if 0 < sum(c in text for text in written) < len(written))
        # Another start takes half a minute, and reads nothing of the stop strings.
        engine._protocol = protocol(stop=(stop,), **sampled)
        cut = answers_of(engine, texts)
    assert len(cut) == len(texts)
    for answer in cut:
        before = free[answer.prompt.task_id]
        assert answer.completion == before.completion.split(stop)[0]
        assert answer.stop_reason == ("stop" if stop in before.completion else before.stop_reason)
