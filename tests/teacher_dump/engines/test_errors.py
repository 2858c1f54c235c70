"""The log of an engine: output of this process and of its children, the cause of a failure, and a killed process."""

from __future__ import annotations

import multiprocessing
import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from types import SimpleNamespace

import pytest

from teacher_dump.engines.errors import EngineLog, watch
from teacher_dump.errors import DeadEngineError, DumpError


@pytest.fixture
def log() -> Iterator[EngineLog]:
    log = EngineLog("toy")
    yield log
    log.discard()


def test_output_of_the_process_and_of_its_children_goes_to_the_file(
    log: EngineLog, capfd: pytest.CaptureFixture[str]
) -> None:
    with log.redirected():
        os.write(1, b"from this process\n")
        subprocess.run([sys.executable, "-c", "import sys; print('from a child', file=sys.stderr)"], check=True)
    os.write(1, b"on the terminal\n")
    assert capfd.readouterr().out == "on the terminal\n"
    assert log.path.read_text() == "from this process\nfrom a child\n"


def test_a_message_of_its_own_is_the_cause(log: EngineLog) -> None:
    assert log.cause(ValueError("head size 8\n is not supported")) == "ValueError: head size 8 is not supported"


def test_a_message_that_refers_to_the_log_is_replaced_by_the_first_exception_there(log: EngineLog) -> None:
    log.path.write_text(
        "(EngineCore pid=77) ERROR 11-26 04:00:00 [core.py:1] Traceback (most recent call last):\n"
        "(EngineCore pid=77) ERROR 11-26 04:00:00 [core.py:1] torch.OutOfMemoryError: tried to allocate 2 GiB\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    error = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    assert log.cause(error) == "OutOfMemoryError: tried to allocate 2 GiB"


def test_without_a_file_the_error_itself_is_the_cause(log: EngineLog) -> None:
    log.discard()
    assert log.cause(RuntimeError("initialization failed")) == "RuntimeError: initialization failed"
    assert len(log.cause(RuntimeError("x" * 1000))) < 330


@pytest.fixture
def process() -> Iterator[BaseProcess]:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    yield process
    if process.pid is not None:
        process.kill()
        process.join()


def test_the_processes_of_an_engine_that_started_are_known(log: EngineLog, process: BaseProcess) -> None:
    with log.starting("engine") as processes:
        process.start()
    assert processes == [process]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("a|b"), DumpError),
        (RuntimeError("torch.OutOfMemoryError: tried to allocate 2 GiB"), DeadEngineError),
        (RuntimeError("CUDA error: unspecified launch failure"), DeadEngineError),
    ],
)
def test_an_engine_that_does_not_start_says_why(log: EngineLog, error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(DumpError) as found, log.starting("writer"):
        raise error
    assert type(found.value) is kind
    assert str(found.value).startswith(f"vllm: the writer did not start ({type(error).__name__}: {error}); its whole")
    assert log.path.exists()


def test_a_refusal_keeps_its_words_and_no_log(log: EngineLog) -> None:
    with pytest.raises(DumpError, match=r"^no such architecture$"), log.starting("engine"):
        raise DumpError("no such architecture")
    assert not log.path.exists()


def test_the_next_step_reports_a_killed_process_after_what_was_finished(log: EngineLog, process: BaseProcess) -> None:
    outputs: queue.Queue[object] = queue.Queue()  # what vLLM's client waits for, and raises where it is an error
    process.start()
    watch(SimpleNamespace(engine_core=SimpleNamespace(outputs_queue=outputs)), [process], log)
    with pytest.raises(queue.Empty):
        outputs.get(timeout=0.5)
    outputs.put("finished")
    process.kill()
    assert outputs.get(timeout=60) == "finished"
    error = outputs.get(timeout=60)
    assert isinstance(error, DeadEngineError)
    assert f"(its process ended with code -9; its output is in {log.path})" in str(error)


def test_an_engine_in_this_process_is_not_watched(log: EngineLog, process: BaseProcess) -> None:
    process.start()
    watch(SimpleNamespace(engine_core=object()), [process], log)
    watch(SimpleNamespace(engine_core=SimpleNamespace(outputs_queue=None)), [], log)
