"""Tests of scripts/demo.sh that need no teacher: the tools accept its commands, on every processor.

No counterpart: the script is not a module.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import click
import pytest

import evalkit.cli
import shards.cli
import student_train.cli
import teacher_dump.cli

SCRIPT = Path(__file__).parents[1] / "scripts" / "demo.sh"
COMMANDS: dict[str, click.Command] = {
    "teacher-dump": teacher_dump.cli.main,
    "student-train": student_train.cli.main,
    "evalkit": evalkit.cli.main,
    "logit-shards": shards.cli.main,
}


def demo_commands(folder: Path, **variables: str) -> list[list[str]]:
    """Return the command lines of the demo, which runs in `folder` with each command replaced by `true`."""
    text = SCRIPT.read_text(encoding="utf-8")
    call = '"$bin/$1" "${@:2}"'
    assert text.count(call) == 1
    (folder / "scripts").mkdir()
    (folder / "scripts" / "demo.sh").write_text(text.replace(call, "true"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEMO_")}
    printed = subprocess.run(
        ["bash", str(folder / "scripts" / "demo.sh")],
        env=kept | variables,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [shlex.split(line)[1:] for line in printed.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("variables", [{}, {"DEMO_OUT": "small", "DEMO_TOKENS": "5000", "DEMO_LIMIT": "4"}])
def test_every_command_of_the_demo_parses(tmp_path: Path, variables: dict[str, str]) -> None:
    commands = demo_commands(tmp_path, **variables)
    assert [name for name, *_ in commands] == ["teacher-dump", "student-train", "evalkit", "evalkit", "logit-shards"]
    for name, *arguments in commands:
        command = COMMANDS[name]
        context = command.make_context(name, list(arguments))
        if isinstance(command, click.Group):
            subcommand = command.commands[arguments[0]]
            subcommand.make_context(arguments[0], arguments[1:], parent=context)


def test_the_demo_names_no_dtype(tmp_path: Path) -> None:
    """bfloat16 is 50 times slower than float32 on a processor that does not compute in it."""
    assert not any("--dtype" in arguments for arguments in demo_commands(tmp_path))


def test_the_student_of_the_demo_keeps_its_layers_by_kl(tmp_path: Path) -> None:
    arguments = demo_commands(tmp_path)[1]
    context = student_train.cli.main.make_context("student-train", arguments[1:])
    assert context.params["layer_choice"] == "kl"
    assert context.params["student"] == "teacher"
    assert context.params["control"]
