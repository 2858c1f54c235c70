"""Tests of the command line: version, debugging, and options that exclude each other, settings as options."""

from __future__ import annotations

from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from shards.errors import ShardError
from teacher_dump.cli import main
from teacher_dump.config import DumpConfig
from teacher_dump.conversations.settings import ConversationSettings
from teacher_dump.corpus.filters.settings import FilterSettings


def test_the_version_is_the_packages() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"teacher-dump, version {version('teacherless')}\n"


def test_debug_keeps_the_traceback_of_an_error(tmp_path: Path) -> None:
    arguments = ["--model", "no-such-name", "--out", str(tmp_path / "o")]
    plain = CliRunner().invoke(main, arguments)
    assert (plain.exit_code, plain.output.count("\n")) == (1, 1)
    assert isinstance(plain.exception, SystemExit)
    debugged = CliRunner().invoke(main, [*arguments, "--debug"])
    assert isinstance(debugged.exception, ShardError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "2", "--plan"], "--check and --plan"),
        (["--check", "2", "--fetch"], "--check and --plan or --fetch"),
        (["--check-file", "x.json"], "--check-file goes with --check"),
        (["--machine", "8xH100"], "--machine goes with --plan"),
    ],
)
def test_options_that_exclude_each_other_are_a_usage_error(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_every_setting_of_a_dump_is_an_option_of_the_command() -> None:
    names = {parameter.name for parameter in main.params}
    without_option = {"filters", "conversations", "temperatures"}
    assert {f.name for f in fields(DumpConfig)} - without_option <= names
    assert {f.name for f in fields(FilterSettings)} <= names
    assert {f.name for f in fields(ConversationSettings)} <= names
