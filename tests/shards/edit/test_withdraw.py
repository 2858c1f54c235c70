"""Tests of withdrawing documents: their rows are removed, and all others are unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.publish import publish
from shards.edit.withdraw import withdraw
from shards.errors import ShardError
from shards.verify import verify
from tests.shards.edit.conftest import rows_of, some_rows, write_cache


def test_documents_are_withdrawn_by_hash_source_and_path(tmp_path: Path) -> None:
    plain, secret = some_rows(6, seed=0), some_rows(2, seed=1, path="secret.py")
    other, last = some_rows(5, seed=2, source="b/other"), some_rows(6, seed=3)
    cache = write_cache(tmp_path / "c", [plain[:3] + secret + plain[3:], other, last])
    listed = tmp_path / "list"
    listed.write_text(f"# opt-outs\nb/other\n\na/repository/secret.py\n{plain[4].info.document}\nnobody/here\n")
    result = CliRunner().invoke(
        main, ["withdraw", str(tmp_path / "c"), "--list", str(listed), "--out", str(tmp_path / "w")]
    )
    assert result.exit_code == 0, result.output
    assert "not in the cache: nobody/here" in result.output
    assert "withdrew 8 documents (8 rows" in result.output
    assert "rewrote 2 of 3 shards" in result.output
    left = shards.open(tmp_path / "w")
    assert verify(left) == []
    gone = {r.info.document for r in [*secret, *other, plain[4]]}
    assert rows_of(left) == [r for r in rows_of(cache) if r[0].document not in gone]  # type: ignore[attr-defined]
    assert (tmp_path / "w" / "000002.arrow").read_bytes() == (tmp_path / "c" / "000002.arrow").read_bytes()
    stones = left.manifest.tombstones
    assert [t.document for t in stones] == [r.info.document for r in [*other, *secret, plain[4]]]
    assert [t.tokens for t in stones] == [len(r.tokens) for r in [*other, *secret, plain[4]]]
    assert left.manifest.history[-1]["from"] == [cache.manifest_sha256]
    assert left.manifest.sha256 != cache.manifest_sha256
    everything = b"".join(p.read_bytes() for p in (tmp_path / "w").rglob("*") if p.is_file())
    assert b"secret.py" not in everything, "a tombstone names a hash and no more"


def test_a_withdrawal_that_names_nothing_or_everything_makes_no_cache(cache_folder: Path, tmp_path: Path) -> None:
    cache = shards.open(cache_folder)
    for names, said in ((("x/y",), "none of the 1 names"), (("a/repository",), "no row is left")):
        with pytest.raises(ShardError, match=said):
            withdraw(cache, names, tmp_path / said[:4])
        assert not (tmp_path / said[:4] / "manifest.json").exists()
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(ShardError, match="found no names"):
        shards.edit.withdraw.read_list(tmp_path / "empty")  # type: ignore[attr-defined]


def test_a_killed_withdrawal_is_repeated_and_a_foreign_folder_refused(cache_folder: Path, tmp_path: Path) -> None:
    cache = shards.open(cache_folder)
    name = cache[0].rows[0].document
    done = withdraw(cache, (name,), tmp_path / "w")
    identity = done.cache.manifest_sha256
    with pytest.raises(ShardError, match="expected an empty folder"):
        withdraw(cache, (name,), tmp_path / "w")
    (tmp_path / "w" / "manifest.json").unlink()
    (tmp_path / "w" / ".x.1.part").write_bytes(b"left over")
    assert withdraw(cache, (name,), tmp_path / "w").cache.manifest_sha256 == identity
    assert not list((tmp_path / "w").glob(".*"))
    (tmp_path / "w" / "manifest.json").unlink()
    with pytest.raises(ShardError, match="expected an empty folder"):
        withdraw(cache, (cache[1].rows[0].document,), tmp_path / "w")
    with pytest.raises(ShardError, match="expected an empty folder"):
        withdraw(cache, (name,), cache_folder)


def test_facts_about_the_records_are_measured_again(tmp_path: Path) -> None:
    from shards.reports.statistics import measure

    rows = some_rows(8, seed=0)
    cache = write_cache(tmp_path / "c", [rows], report={"positions": 1})
    left = withdraw(cache, (rows[0].info.document,), tmp_path / "w").cache
    assert left.manifest.report["positions"] == left.tokens - left.rows
    whole, free = measure(cache), publish(cache, str(tmp_path / "free"), without_tokens=True)
    textless = measure(shards.open(tmp_path / "free"))
    assert free.manifest.report == {"positions": 1}
    assert textless["bytes_by_field"].get("tokens", 0) < whole["bytes_by_field"]["tokens"]
    of_text = ("realised_logp", "bits_per_byte", "bytes_by_field")
    assert {k: v for k, v in textless.items() if k not in of_text} == {
        k: v for k, v in whole.items() if k not in of_text
    }
