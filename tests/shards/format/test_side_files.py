"""Tests of the files that the manifest does not list: every flipped bit is found, unknown files are named."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.commit import entry_path
from shards.edit.withdraw import withdraw
from shards.errors import ShardError
from shards.format.schema import canonical_json
from shards.format.side_files import PROBLEM_OF
from shards.verify import find_problems, fix_plan, verify
from teacher_dump.run.identity import identity_digest


def assert_every_flip_is_found(folder: Path, name: str) -> None:
    """Flip a bit of each byte of a side file. The checks find all of them, and `verify` uses the checks."""
    raw = (folder / name).read_bytes()
    assert PROBLEM_OF[name](raw) is None
    for byte in range(len(raw)):
        assert PROBLEM_OF[name](flipped(raw, byte)) is not None, byte
    for byte in (0, len(raw) // 2, len(raw) - 1):
        (folder / name).write_bytes(flipped(raw, byte))
        assert not passes(folder), byte


def flipped(raw: bytes, byte: int) -> bytes:
    return raw[:byte] + bytes([raw[byte] ^ 1]) + raw[byte + 1 :]


def passes(folder: Path) -> bool:
    try:
        return verify(shards.open(folder)) == []
    except ShardError:
        return False


@pytest.mark.slow
def test_no_flipped_bit_of_any_file_passes(folder: Path) -> None:
    """60 flips in all files, and 40 more in each file that the manifest does not list."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    assert {f.name for f in files} >= {"plan.json", "check.json", "README.md", "000000.arrow.json", "manifest.json"}
    generator = random.Random(5)
    places = [(file, byte) for file in files for byte in generator.sample(range(file.stat().st_size), 3)]
    side = [f for f in files if f.suffix in (".json", ".md") and f.parent == folder]
    places += [(file, byte) for file in side for byte in generator.sample(range(file.stat().st_size), 40)]
    assert len(places) > 60
    for file, byte in places:
        raw = file.read_bytes()
        bit = 1 << generator.randrange(8)
        file.write_bytes(raw[:byte] + bytes([raw[byte] ^ bit]) + raw[byte + 1 :])
        assert not passes(folder), f"{file.name} byte {byte} bit {bit}"
        file.write_bytes(raw)
    assert passes(folder)


@pytest.mark.parametrize("name", ["plan.json", "check.json", "README.md", "000000.arrow.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b"\x00" * 50])
def test_a_damaged_side_file_is_named(name: str, damage: bytes, folder: Path) -> None:
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[:-20] + damage if name == "README.md" else damage)
    if name == "check.json" and damage == b"{}":  # as of an earlier release: it can be read
        assert verify(shards.open(folder)) == []
        return
    (problem,) = verify(shards.open(folder))
    assert problem.startswith(f"{folder}/{name}: ")


def test_a_plan_of_an_earlier_release_is_checked_by_its_fingerprint(folder: Path) -> None:
    identity = {"data": "stdlib"}
    raw = canonical_json({"fingerprint": identity_digest(identity), "identity": identity})
    (folder / "plan.json").write_bytes(raw)
    assert passes(folder)
    assert_every_flip_is_found(folder, "plan.json")


def test_side_files_are_not_a_part_of_the_cache(folder: Path) -> None:
    for name in ("plan.json", "check.json", "README.md", "000000.arrow.json"):
        (folder / name).unlink()
        assert verify(shards.open(folder)) == []


def test_a_card_that_somebody_wrote_is_let_through(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert re.search(r"<!-- sha256 of the card above: [0-9a-f]{64} -->\n\Z", text)
    (folder / "README.md").write_text(text.rpartition("<!--")[0] + "Thanks to everybody.\n")
    assert verify(shards.open(folder)) == []
    (folder / "README.md").write_text(text.replace("Records", "records", 1))
    assert len(verify(shards.open(folder))) == 1


def test_the_note_of_an_edit_is_checked(cache_folder: Path, tmp_path: Path) -> None:
    withdraw(shards.open(cache_folder), (shards.open(cache_folder)[0].rows[0].document,), tmp_path / "w")
    assert verify(shards.open(tmp_path / "w")) == []
    assert_every_flip_is_found(tmp_path / "w", "edit.json")


def test_files_that_nothing_is_known_of_are_named_but_no_problem(folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / "lost+found").mkdir()
    result = CliRunner().invoke(main, ["verify", str(folder)])
    assert result.exit_code == 0
    assert "not checked: notes.txt" in result.output
    assert "lost+found" not in result.output


def test_the_plan_for_damaged_side_files_deletes_them_alone(folder: Path) -> None:
    (folder / "plan.json").write_text("{}")
    entry_path(folder / "000001.arrow").write_text("{}")
    cache = shards.open(folder)
    plan = fix_plan(cache, list(find_problems(cache)))
    assert plan["to_dump"] == {"delete": ["000001.arrow.json", "plan.json"], "run": None}
    assert plan["to_fetch"] is None
    for name in plan["to_dump"]["delete"]:
        (folder / name).unlink()
    assert verify(cache) == []
