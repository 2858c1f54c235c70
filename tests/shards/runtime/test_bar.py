"""Tests of the bar that all commands draw."""

from __future__ import annotations

import io

from rich.console import Console

from shards.runtime.bar import Bar


def test_a_bar_without_a_terminal_ends_without_an_empty_line() -> None:
    out = io.StringIO()
    with Bar(console=Console(file=out), transient=True) as bar:
        bar.add_task("checking", total=2)
    assert "\n" not in out.getvalue()
