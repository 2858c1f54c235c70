"""Tests of the options generated from settings: names, types, defaults, nested settings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields

import click
from click.testing import CliRunner

from shards.runtime.settings_options import build_settings, options_from
from teacher_dump.cli import main
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.filters.settings import FilterSettings


@dataclass(frozen=True, kw_only=True)
class ToyFilters:
    """Settings inside others."""

    keep_odd: bool = field(default=False, metadata={"help": "Keep odd numbers."})


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    """Settings of every kind of field."""

    name: str
    count: int = field(default=3, metadata={"help": "Number of things.", "option": "--how-many"})
    share: float | None = field(default=None, metadata={"help": "Share.", "default_text": "all"})
    kind: str = field(default="a", metadata={"help": "Kind.", "choices": ("a", "b")})
    filters: ToyFilters = field(default_factory=ToyFilters)
    hidden: int = 7


@click.command(context_settings={"show_default": True})
@options_from(ToySettings)
def toy(**parameters: object) -> None:
    """Print the settings."""
    click.echo(json.dumps(asdict(build_settings(ToySettings, {"name": "n", **parameters}))))


def test_each_field_with_help_is_an_option_and_nested_settings_are_built() -> None:
    assert json.loads(CliRunner().invoke(toy, []).output) == {
        "name": "n",
        "count": 3,
        "share": None,
        "kind": "a",
        "filters": {"keep_odd": False},
        "hidden": 7,
    }
    arguments = ["--how-many", "5", "--share", "0.5", "--kind", "b", "--keep-odd"]
    settings = json.loads(CliRunner().invoke(toy, arguments).output)
    assert (settings["count"], settings["share"], settings["kind"]) == (5, 0.5, "b")
    assert settings["filters"] == {"keep_odd": True}
    for wrong in (["--kind", "c"], ["--how-many", "x"], ["--hidden", "1"], ["--name", "m"]):
        assert CliRunner().invoke(toy, wrong).exit_code == 2
    assert "[default: (all)]" in CliRunner().invoke(toy, ["--help"]).output


def test_every_setting_of_a_dump_is_an_option_of_the_command() -> None:
    names = {parameter.name for parameter in main.params}
    without_option = {"filters", "temperatures"}
    assert {f.name for f in fields(DumpConfig)} - without_option <= names
    assert {f.name for f in fields(FilterSettings)} <= names
