"""Tests of the options and the error handling that all commands share."""

from __future__ import annotations

from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from shards.errors import ShardError, StoreError
from shards.runtime.command_line import one_line_errors, standard_options


@click.command()
@standard_options("a-program")
def command(debug: bool) -> None:
    """Fail with an error that a user can fix."""
    with one_line_errors(ShardError, prefix="a-program", debug=debug, exit_code=lambda error: 75):
        raise StoreError("bucket: not reachable; check the address")


def test_an_error_of_a_user_is_one_line_and_an_exit_code() -> None:
    result = CliRunner().invoke(command)
    assert (result.exit_code, result.stderr) == (75, "a-program: bucket: not reachable; check the address\n")


def test_debug_shows_the_exception() -> None:
    result = CliRunner().invoke(command, ["--debug"])
    assert isinstance(result.exception, StoreError)
    assert result.stderr == ""


def test_version_is_that_of_the_distribution() -> None:
    result = CliRunner().invoke(command, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"a-program, version {version('teacherless')}\n")


def test_other_exceptions_keep_their_traceback() -> None:
    with pytest.raises(KeyError), one_line_errors(ShardError):
        raise KeyError("a bug")


def test_the_group_handles_errors_of_every_command() -> None:
    from shards.cli import main

    missing = CliRunner().invoke(main, ["inspect", "no/such/folder"])
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert missing.stderr.startswith("error: no/such/folder")
    shown = CliRunner().invoke(main, ["--debug", "inspect", "no/such/folder"])
    assert isinstance(shown.exception, ShardError)
