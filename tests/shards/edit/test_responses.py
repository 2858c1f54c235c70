"""Tests of edits of caches whose rows are responses: publish, withdraw, merge and removal of the text.

No counterpart: every operation of the folder is tested on rows with a context and messages.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.hydrate import hydrate, rows_without_tokens
from shards.edit.merge import merge
from shards.edit.publish import fetch, publish
from shards.edit.withdraw import withdraw
from shards.errors import ShardError, TokensRemovedError
from shards.format.batch import Row, read_batch, row_infos
from shards.reports.statistics import measure
from shards.verify import verify
from tests.shards.conftest import make_cache, make_response_cache
from tests.shards.edit.conftest import rows_of


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Return the rows of the cache in the folder `whole`."""
    return make_response_cache(tmp_path / "whole")


def test_a_copy_has_the_same_rows(rows: list[Row], tmp_path: Path) -> None:
    whole = shards.open(tmp_path / "whole")
    publish(whole, str(tmp_path / "pub"))
    fetch(str(tmp_path / "pub"), tmp_path / "copy")
    copy = shards.open(tmp_path / "copy")
    assert copy.manifest_sha256 == whole.manifest_sha256
    assert rows_of(copy) == rows_of(whole)
    card = (tmp_path / "pub" / "README.md").read_text()
    assert "records of every token of responses to prompts" in card
    assert "format version 2" in card
    assert "| responses | student step 100 (weights 111111111111), temperature 0.8, top-p 0.95" in card
    assert verify(copy) == []


def test_the_text_of_responses_is_not_removed_by_accident(rows: list[Row], tmp_path: Path) -> None:
    run, whole, pub = CliRunner(), str(tmp_path / "whole"), tmp_path / "pub"
    result = run.invoke(main, ["publish", whole, str(pub), "--without-tokens"])
    assert result.exit_code == 1
    assert "what a model wrote is in no corpus" in result.output
    assert "--force" in result.output
    assert not pub.exists()
    result = run.invoke(main, ["publish", whole, str(pub), "--force"])
    assert result.exit_code == 2
    assert "give it with --without-tokens" in result.output


def test_removed_responses_leave_no_text_and_are_not_trained_on(rows: list[Row], tmp_path: Path) -> None:
    whole = shards.open(tmp_path / "whole")
    result = CliRunner().invoke(
        main, ["publish", str(tmp_path / "whole"), str(tmp_path / "free"), "--without-tokens", "--force"]
    )
    assert result.exit_code == 0, result.output
    free = shards.open(tmp_path / "free")
    assert verify(free) == []
    assert free.manifest.rows_sha256 == whole.manifest.rows_sha256
    assert (free.rows, free.tokens) == (whole.rows, whole.tokens)
    for i in range(len(free)):
        batch = read_batch(free.manifest.layout, free.chunk_bytes(i)[2])
        assert not batch.column("tokens").flatten().tolist()
        assert {info.messages for info in row_infos(batch)} == {""}
        assert [info.context for info in row_infos(batch)] == whole[i].contexts.tolist()
    with pytest.raises(TokensRemovedError, match="responses in it cannot be put back"):
        free[0]
    with pytest.raises(ShardError, match="cannot be put back"):
        list(rows_without_tokens(free))
    with pytest.raises(ShardError, match="cannot be put back"):
        hydrate(free, tmp_path / "no", lambda n: [rows[n].tokens])
    assert not (tmp_path / "no").exists()
    assert "cannot be put back" in " ".join((tmp_path / "free" / "README.md").read_text().split())
    of_text = ("realised_logp", "bits_per_byte", "bytes_by_field")
    facts, textless = measure(whole), measure(free)
    assert {k: v for k, v in textless.items() if k not in of_text} == {
        k: v for k, v in facts.items() if k not in of_text
    }


def test_withdrawing_a_prompt_removes_all_its_responses(rows: list[Row], tmp_path: Path) -> None:
    whole = shards.open(tmp_path / "whole")
    prompt = rows[0].info.document
    gone = [row for row in rows if row.info.document == prompt]
    assert len(gone) == 3
    left = withdraw(whole, (prompt,), tmp_path / "w").cache
    assert verify(left) == []
    assert rows_of(left) == [row for row in rows_of(whole) if row[0].document != prompt]  # type: ignore[attr-defined]
    (tombstone,) = left.manifest.tombstones
    assert (tombstone.rows, tombstone.tokens) == (3, sum(len(row.tokens) for row in gone))
    assert left.manifest.writer == whole.manifest.writer
    with pytest.raises(ShardError, match="which was withdrawn from"):
        merge([left, whole], tmp_path / "m")


def test_merging_keeps_each_response_once(rows: list[Row], tmp_path: Path) -> None:
    whole = shards.open(tmp_path / "whole")
    half = withdraw(whole, (rows[0].info.document,), tmp_path / "half").cache
    half = replace(half, manifest=replace(half.manifest, tombstones=()))
    merged = merge([half, whole], tmp_path / "m")
    assert merged.dropped_rows == half.rows
    assert sorted(map(repr, rows_of(merged.cache))) == sorted(map(repr, rows_of(whole)))
    assert verify(merged.cache) == []
    assert merged.cache.manifest.writer == whole.manifest.writer


def test_responses_of_another_writer_and_documents_are_not_merged(rows: list[Row], tmp_path: Path) -> None:
    whole = shards.open(tmp_path / "whole")
    assert whole.manifest.writer is not None
    hotter = replace(whole.manifest, writer=replace(whole.manifest.writer, temperature=1.0))
    with pytest.raises(ShardError, match=r"found the writer's temperature other than .* 1\.0, expected 0\.8"):
        merge([whole, replace(whole, manifest=hotter)], tmp_path / "m")
    unwritten = replace(whole, manifest=replace(whole.manifest, writer=None))
    for pair in ([whole, unwritten], [unwritten, whole]):
        with pytest.raises(ShardError, match="found the writer's weights_sha256"):
            merge(pair, tmp_path / "m")
    make_cache(tmp_path / "documents")
    with pytest.raises(ShardError, match="found the format version"):
        merge([whole, shards.open(tmp_path / "documents")], tmp_path / "m")
    assert not (tmp_path / "m").exists()
