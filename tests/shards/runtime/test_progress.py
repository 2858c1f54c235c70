"""Tests of progress on a terminal and in a log, with and without an error."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

import pytest

from shards.runtime.progress import progress_bar


class Stream(io.StringIO):
    """An error stream that may be a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def _work(advance: Callable[[int], None]) -> None:
    advance(30)
    raise ValueError("damaged")


@pytest.mark.parametrize(("is_terminal", "term"), [(False, "xterm"), (True, "dumb")])
def test_short_work_that_fails_leaves_nothing_where_the_cursor_cannot_move(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", stream := Stream(is_terminal=is_terminal))
    with pytest.raises(ValueError, match="damaged"), progress_bar("fetching", 100) as advance:
        _work(advance)
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal_is_erased_before_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream := Stream(is_terminal=True))
    with pytest.raises(ValueError, match="damaged"), progress_bar("checking", 100, unit="tokens") as advance:
        _work(advance)
    assert "checking" in stream.getvalue()
    assert stream.getvalue().endswith("\n\x1b[?25h\r\x1b[1A\x1b[2K")  # down, cursor shown, up again, line erased


def test_a_log_gets_lines_of_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Stream(is_terminal=False))
    with progress_bar("fetching", 2_000, every_s=0.0) as advance:
        advance(1_500)
        deadline = time.monotonic() + 30
        while not stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "fetching: 1,500 of 2,000 bytes\n" in stream.getvalue()
