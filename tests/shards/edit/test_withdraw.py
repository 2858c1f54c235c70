"""Are changed caches true? What was withdrawn is gone, merged rows are there once, the rest is untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.merge import merge
from shards.edit.publish import publish
from shards.edit.withdraw import withdraw
from shards.errors import ShardError
from shards.format.batch import Row
from shards.format.manifest import Manifest, ShardEntry
from shards.read import Cache
from shards.storage.store import write_whole
from shards.verify import verify
from shards.write import ShardWriter
from tests.shards.conftest import LAYOUT, make_cache, make_manifest, make_row


def write_cache(folder: Path, shards_of_rows: list[list[Row]], **changes: Any) -> Cache:
    """Write a cache of given rows."""
    entries: list[ShardEntry] = []
    for number, rows in enumerate(shards_of_rows):
        writer = ShardWriter(
            folder, f"{number:06d}.arrow", layout=LAYOUT, task=str(number), fingerprint="f", chunk_tokens=80
        )
        with writer:
            for row in rows:
                writer.write(row)
            entries.append(writer.close())
    write_whole(folder / "manifest.json", replace(make_manifest(tuple(entries)), **changes).to_bytes())
    return shards.open(folder)


def some_rows(count: int, *, seed: int, path: str = "folder/file.py", source: str = "a/repository") -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = [make_row(rng, tokens=int(rng.integers(8, 50))) for _ in range(count)]
    return [replace(r, info=replace(r.info, path=path, source=source)) for r in rows]


def rows_of(cache: Cache) -> list[tuple[object, ...]]:
    """Return every row's origin and content, in order."""
    return [
        (row.rows[0], row.tokens.tolist(), row.head_ids.tolist(), row.head_probs.tolist(), row.realised_logp.tolist())
        for chunk in cache
        for row in (chunk.row(r) for r in range(len(chunk.rows)))
    ]


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


def test_merged_caches_hold_every_row_once_in_order(tmp_path: Path) -> None:
    a, b, c = some_rows(4, seed=0), some_rows(4, seed=1), some_rows(5, seed=2)
    first = write_cache(tmp_path / "a", [a, b], corpus={"source": "x", "documents": 8})
    second = write_cache(tmp_path / "b", [b[1:3] + c, b], corpus={"source": "y", "documents": 9})
    result = CliRunner().invoke(main, ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "m")])
    assert result.exit_code == 0, result.output
    assert "13 rows" in result.output
    assert "dropped 6 rows" in result.output
    merged = shards.open(tmp_path / "m")
    assert verify(merged) == []
    assert rows_of(merged) == rows_of(first) + [r for r in rows_of(second) if r not in rows_of(first)]
    assert merged.manifest.corpus["source"] == "x + y"
    assert merged.manifest.corpus["documents"] == 17
    kept = [s for s in merged.manifest.shards if s.sha256 in {e.sha256 for e in first.manifest.shards}]
    assert len(kept) == 2, "shards without a doubled row are the same bytes"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: {"teacher": replace(m.teacher, weights_sha256="1" * 64)}, "found the teacher's weights other than"),
        (lambda m: {"tokenizer": replace(m.tokenizer, fingerprint="u")}, "found the tokenizer other than"),
        (lambda m: {"tokenizer": replace(m.tokenizer, prefix_tokens=(1,))}, "found the prefix tokens other than"),
        (lambda m: {"engine": {"name": "test", "dtype": "bfloat16"}}, "found the engine's dtype other than"),
        (lambda m: {"layout": replace(m.layout, threshold=0.1)}, "found the layout's threshold other than"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    cache_folder: Path, tmp_path: Path, change: Callable[[Manifest], dict[str, Any]], said: str
) -> None:
    make_cache(tmp_path / "b", seed=1)
    other = shards.open(tmp_path / "b")
    changed = replace(other, manifest=replace(other.manifest, **change(other.manifest)))
    with pytest.raises(ShardError, match=said):
        merge([shards.open(cache_folder), changed], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_same_window_with_other_content_is_refused(tmp_path: Path) -> None:
    rows, others = some_rows(3, seed=0), some_rows(3, seed=1)
    others[2] = replace(others[2], info=replace(others[2].info, document=rows[1].info.document))
    with pytest.raises(ShardError, match=r"found window 0 of document .* keep one of the two"):
        merge([write_cache(tmp_path / "a", [rows]), write_cache(tmp_path / "b", [others])], tmp_path / "m")


def test_a_withdrawn_document_does_not_come_back_by_merging(tmp_path: Path) -> None:
    rows = some_rows(4, seed=0)
    whole = write_cache(tmp_path / "a", [rows])
    other = write_cache(tmp_path / "b", [some_rows(4, seed=1)])
    without = withdraw(whole, (rows[0].info.document,), tmp_path / "w").cache
    with pytest.raises(ShardError, match="which was withdrawn from"):
        merge([without, whole], tmp_path / "m")
    merged = merge([without, other], tmp_path / "m2").cache
    assert [t.document for t in merged.manifest.tombstones] == [rows[0].info.document]


def test_rows_keep_their_codes_when_they_are_rewritten(tmp_path: Path) -> None:
    """The digest of every row that stays is the one that its writer gave it."""
    rows = some_rows(9, seed=4)
    cache = write_cache(tmp_path / "c", [rows])
    left = withdraw(cache, (rows[3].info.document,), tmp_path / "w").cache
    whole = write_cache(tmp_path / "d", [rows[:3] + rows[4:]])
    assert left.manifest.rows_sha256 == whole.manifest.rows_sha256
    assert left.manifest_sha256 != whole.manifest_sha256
