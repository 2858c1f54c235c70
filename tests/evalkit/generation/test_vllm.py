"""An engine of vLLM whose process is killed makes the next step raise; vLLM alone would wait for ever."""

from __future__ import annotations

import multiprocessing
import queue
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from evalkit.generation.vllm import _watch


class EngineDeadError(Exception):
    """Stands for vLLM's: importing vLLM takes too long for a fast test."""


@pytest.fixture(autouse=True)
def _without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vllm", "vllm.v1", "vllm.v1.engine", "vllm.v1.engine.exceptions"):
        module = ModuleType(name)
        module.__dict__["EngineDeadError"] = EngineDeadError
        monkeypatch.setitem(sys.modules, name, module)


def test_a_killed_process_of_the_engine_is_what_the_next_step_finds() -> None:
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
