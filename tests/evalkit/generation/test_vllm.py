"""Tests of generation with vLLM: a process that dies, and answers of a real engine."""

from __future__ import annotations

import multiprocessing
import queue
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from evalkit.generation.base import Answer, EngineSettings, Prompt
from evalkit.generation.decoding import PromptQueue
from evalkit.generation.vllm import VllmGenerationEngine, _watch
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


class FakeLlm:
    """Ends one request a step, the last one that was added."""

    def __init__(self) -> None:
        self.running: dict[str, list[int]] = {}
        self.batches: list[int] = []

    def add_request(self, name: str, prompt: dict[str, list[int]], params: object) -> None:
        self.running[name] = prompt["prompt_token_ids"]

    def step(self) -> list[SimpleNamespace]:
        self.batches.append(len(self.running))
        name = list(self.running)[-1]
        del self.running[name]
        return [SimpleNamespace(request_id=name, outputs=[SimpleNamespace(token_ids=[5])])]


class FakeFollowUps:
    """One follow-up for each first answer; it is ready at once."""

    extra_tokens = 10

    def __init__(self) -> None:
        self.ready: list[Prompt] = []
        self.answers: list[Answer] = []

    def receive(self, answer: Answer) -> None:
        self.answers.append(answer)
        if "+" not in answer.prompt.text:
            self.ready.append(replace(answer.prompt, text=answer.prompt.text + "+"))

    def take(self, wait: str) -> list[Prompt]:
        ready, self.ready = self.ready, []
        return ready


@pytest.mark.parametrize("deterministic", [False, True])
def test_follow_ups_enter_the_running_batch(monkeypatch: pytest.MonkeyPatch, deterministic: bool):
    settings = EngineSettings(engine="vllm", batch_size=2, dtype="float32", deterministic=deterministic)
    engine = VllmGenerationEngine(None, protocol(), settings)
    engine._llm, engine._max_len, engine._tokenizer = FakeLlm(), 100, FakeTokenizer()
    monkeypatch.setattr(engine, "_sampling_params", lambda prompt, max_tokens: None)
    prompts = [Prompt(task_id=f"T/{number}", index=0, text="p", seed=0) for number in range(5)]
    follow_ups = FakeFollowUps()
    queue = PromptQueue(
        prompts,
        [[1]] * 5,
        tokenizer=engine._tokenizer,
        follow_ups=follow_ups,
        on_answer=follow_ups.receive,
        deterministic=deterministic,
    )
    engine._run(queue, on_answer=follow_ups.receive, on_tokens=lambda tokens: None)
    assert sorted(answer.prompt.text for answer in follow_ups.answers) == ["p"] * 5 + ["p+"] * 5
    if deterministic:  # batches of two, each with its follow-ups after it
        assert engine._llm.batches == [2, 1] * 4 + [1] * 2
        assert [answer.prompt.text for answer in follow_ups.answers] == ["p", "p", "p+", "p+"] * 2 + ["p", "p+"]
    else:  # a follow-up takes the place of its answer, before the last of the first prompts
        assert engine._llm.batches == [4] * 4 + [3, 3, 2, 2, 1, 1]
        assert [answer.prompt.text for answer in follow_ups.answers] == ["p", "p+"] * 5


class FakeTokenizer:
    """One id for each character."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [1] * len(text)}

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids))


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_delivers_finished_answers_by_seed_and_the_greedy_ones_of_transformers(checkpoint: Path):
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
        engine._protocol = protocol()
        greedy = {answer.prompt.task_id: answer.completion for answer in answers_of(engine, TEXTS)}
    assert greedy == {answer.prompt.task_id: answer.completion for answer in generate(checkpoint, TEXTS)}
    assert len(cut) == len(texts)
    for answer in cut:
        before = free[answer.prompt.task_id]
        assert answer.completion == before.completion.split(stop)[0]
        assert answer.stop_reason == ("stop" if stop in before.completion else before.stop_reason)
