"""Write docs/cli.md from the help text of every command; tests/test_house.py compares the two."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

import click

import evalkit.cli
import shards.cli
import student_train.cli
import teacher_dump.cli

COMMANDS: dict[str, click.Command] = {
    "teacher-dump": teacher_dump.cli.main,
    "student-train": student_train.cli.main,
    "evalkit": evalkit.cli.main,
    "logit-shards": shards.cli.main,
}
SUBCOMMANDS = {
    "evalkit": (
        "score",
        "write-tests",
        "rerank",
        "train-verifier",
        "ask",
        "index-docs",
        "search-docs",
        "compare",
        "report",
        "protocols",
        "doctor",
    ),
    "logit-shards": ("inspect", "verify", "publish", "fetch", "hydrate", "withdraw", "merge", "combine", "import"),
}
TERMINAL = {"COLUMNS": "100", "TERM": "dumb"}


def help_text(program: str, *words: str) -> str:
    """Return what `program words --help` prints in a terminal of 100 columns."""
    output = io.StringIO()
    with mock.patch.dict(os.environ, TERMINAL), contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        COMMANDS[program].main([*words, "--help"], prog_name=program)
    return output.getvalue()


def reference() -> str:
    """Return the Markdown text of docs/cli.md."""
    parts = ["# Commands", "", "Written by `python scripts/cli_reference.py` from the help text of each command."]
    for program in COMMANDS:
        for words in ((), *((name,) for name in SUBCOMMANDS.get(program, ()))):
            lines = (f"    {line}".rstrip() for line in help_text(program, *words).rstrip().splitlines())
            parts += ["", f"## {' '.join((program, *words))}", "", *lines]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "cli.md").write_text(reference())
