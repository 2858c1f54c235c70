"""Tests of scripts/demo.sh that need no teacher: its commands are ones that the tools accept, on every processor."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

import evalkit.cli
import student_train.cli
import teacher_dump.cli

SCRIPT = Path(__file__).parents[1] / "scripts" / "demo.sh"
COMMANDS: dict[str, click.Command] = {
    "teacher-dump": teacher_dump.cli.main,
    "student-train": student_train.cli.main,
    "evalkit": evalkit.cli.main,
}


def demo_commands() -> list[list[str]]:
    """Return the command lines that the demo runs."""
    lines = SCRIPT.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("run ")]


def test_every_command_of_the_demo_parses() -> None:
    found = demo_commands()
    assert [name for name, *_ in found] == ["teacher-dump", "student-train", "evalkit", "evalkit"]
    for name, *arguments in found:
        command = COMMANDS[name]
        context = command.make_context(name, list(arguments))
        if isinstance(command, click.Group):
            subcommand = command.commands[arguments[0]]
            subcommand.make_context(arguments[0], arguments[1:], parent=context)


def test_the_demo_leaves_the_arithmetic_to_the_machine() -> None:
    """bfloat16 is 50 times slower than float32 on a processor that does not compute in it."""
    assert not any("--dtype" in arguments for arguments in demo_commands())


def test_the_student_of_the_demo_keeps_its_layers_by_importance() -> None:
    arguments = demo_commands()[1]
    context = student_train.cli.main.make_context("student-train", arguments[1:])
    assert context.params["layer_choice"] == "importance"
    assert context.params["student"] == "teacher"
    assert context.params["control"]
