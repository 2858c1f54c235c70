"""Tests of the options generated from settings: names, types, defaults, nested settings, negations."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import click
from click.testing import CliRunner

from shards.runtime.settings_options import build_settings, options_from


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


@dataclass(frozen=True, kw_only=True)
class ToySwitches:
    """Settings that are on or off."""

    loud: bool = field(default=True, metadata={"help": "Be loud."})
    dry_run: bool = field(default=False, metadata={"help": "Do nothing."})


def test_with_negations_each_switch_goes_both_ways_and_shows_its_default() -> None:
    @click.command()
    @options_from(ToySwitches, negations=True)
    def switches(**parameters: object) -> None:
        click.echo(json.dumps(parameters))

    for arguments, loud, dry_run in ((["--no-loud"], False, False), (["--loud", "--dry-run"], True, True)):
        assert json.loads(CliRunner().invoke(switches, arguments).output) == {"loud": loud, "dry_run": dry_run}
    text = CliRunner().invoke(switches, ["--help"]).output
    assert "--loud / --no-loud" in text
    assert "[default: no-dry-run]" in text
