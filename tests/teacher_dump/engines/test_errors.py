"""The log of an engine: output of this process and of its children, and the cause of a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from teacher_dump.engines.errors import EngineLog


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
