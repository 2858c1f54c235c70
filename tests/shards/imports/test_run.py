"""Tests of whole imports: what comes out, and that nothing comes out of a broken one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.errors import ShardError
from shards.imports import run
from shards.imports.run import ImportRequest, import_cache, source_bytes
from shards.imports.top_k import SMALLEST_HEAD
from shards.verify import unknown_files, verify
from tests.shards.imports.conftest import END, VOCAB, TopK, make_top_k, plain_row, write_parquet
from tests.shards.imports.distillkit_writer import compressed_row
from tests.shards.imports.test_distillkit import RECOMMENDED

SETTINGS = {"d": VOCAB, **RECOMMENDED, "k": 20, "exact_k": 20, "exact_dtype": "float32", "polynomial_terms": []}


@pytest.fixture
def rows() -> list[TopK]:
    rng = np.random.default_rng(0)
    return [make_top_k(rng, length=int(n), k=20) for n in rng.integers(5, 40, 7)]


def write_distillkit(folder: Path, rows: list[TopK], settings: dict[str, Any], *, per_file: int = 3) -> Path:
    """Write rows as DistillKit's capture does: numbered files, and its settings beside them."""
    for first in range(0, len(rows), per_file):
        part = [compressed_row(r.tokens, r.ids, r.logprobs, settings) for r in rows[first : first + per_file]]
        write_parquet(folder / f"data_{first // per_file}.parquet", part)
    (folder / "compression_config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def request(path: Path, tokenizer: Path, **more: Any) -> ImportRequest:
    return ImportRequest(**{"layout": "top-k-parquet", "path": path, "tokenizer": str(tokenizer), **more})


def check_records(cache: shards.Cache, rows: list[TopK], *, error: float) -> None:
    """Compare a cache with the rows that were stored: tokens, and every probability within `error` or a code's step."""
    assert verify(cache) == []
    assert unknown_files(cache) == []
    read = [chunk.row(r) for chunk in cache for r in range(len(chunk.rows))]
    assert [row.tokens.tolist() for row in read] == [row.tokens.tolist() for row in rows]
    for row, source in zip(read, rows, strict=True):
        for p in range(len(source.ids)):
            span = slice(int(row.head_starts[p]), int(row.head_starts[p + 1]))
            head = dict(zip(row.head_ids[span].tolist(), row.head_probs[span].tolist(), strict=True))
            exact = np.exp(source.logprobs[p])
            kept = {int(i): q for i, q in zip(source.ids[p], exact, strict=True) if q >= SMALLEST_HEAD}
            assert head.keys() == kept.keys()
            # A code's step is pi / 1020 in asin(sqrt(p)); the largest probability has the sum of the others' errors.
            root = {i: abs(np.arcsin(np.sqrt(head[i])) - np.arcsin(np.sqrt(kept[i]))) for i in list(head)[1:]}
            assert max(root.values(), default=0) < np.pi / 2040 + 1e-6 + error
            assert row.tail_mass[p] == pytest.approx(1 - sum(kept.values()), abs=0.005 + error)
            label = int(source.tokens[p + 1])
            assert np.isnan(row.label_logp[p]) == (label not in head)
            if label in head:
                assert row.label_logp[p] == pytest.approx(np.log(head[label]), abs=1e-5)
        assert np.isnan(row.entropy).all()
        assert np.isnan(row.whitespace_logp).all()
        assert not len(row.draw_ids)
        assert row.log_z.shape == (len(source.ids), 0)


def test_plain_parquet_goes_round_trip(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "rows.parquet", [plain_row(r) for r in rows])
    steps: list[int] = []
    result = import_cache(request(file, tokenizer_folder, teacher="T"), tmp_path / "out", on_bytes=steps.append)
    check_records(shards.open(tmp_path / "out"), rows, error=0)
    assert sum(steps) == source_bytes(file)
    manifest = result.cache.manifest
    assert manifest == shards.open(tmp_path / "out").manifest
    assert manifest.layout.absent == ("draws", "entropy", "realised", "whitespace")
    assert manifest.layout.version == 1
    assert (manifest.teacher.name, manifest.tokenizer.prefix_tokens) == ("T", (END,))
    assert manifest.settings["window_tokens"] == max(len(r.tokens) for r in rows)
    in_head = sum(int(t) in set(i.tolist()) for r in rows for t, i in zip(r.tokens[1:], r.ids, strict=True))
    assert result.in_head == pytest.approx(in_head / sum(len(r.ids) for r in rows), abs=0.02)
    assert "bits_per_byte" not in manifest.report


def test_distillkit_goes_round_trip(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = write_distillkit(tmp_path / "captured", rows, SETTINGS)
    import_cache(request(folder, tokenizer_folder, layout="distillkit"), tmp_path / "out")
    check_records(shards.open(tmp_path / "out"), rows, error=1e-4)


def test_distillkits_plain_columns_go_round_trip(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    stored = [{"input_ids": r.tokens, "token_ids": r.ids, "top_values": r.logprobs} for r in rows]
    file = write_parquet(tmp_path / "rows.parquet", stored)
    import_cache(request(file, tokenizer_folder, layout="distillkit"), tmp_path / "out")
    check_records(shards.open(tmp_path / "out"), rows, error=0)


def test_files_are_read_in_the_order_of_their_numbers(
    rows: list[TopK], tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And large imports become several shards."""
    monkeypatch.setattr(run, "SHARD_TOKENS", 30)
    monkeypatch.setattr(run, "CHUNK_TOKENS", 20)
    many = rows * 2
    folder = write_distillkit(tmp_path / "captured", many, SETTINGS, per_file=1)
    assert (folder / "data_10.parquet").exists()
    result = import_cache(request(folder, tokenizer_folder, layout="distillkit"), tmp_path / "out")
    check_records(shards.open(tmp_path / "out"), many, error=1e-4)
    assert len(result.cache.manifest.shards) > 3


def test_the_same_files_give_the_same_cache(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "rows.parquet", [plain_row(r) for r in rows])
    (tmp_path / "b").mkdir()  # an empty folder is as good as none
    results = [import_cache(request(file, tokenizer_folder), tmp_path / name) for name in "ab"]
    assert results[0].cache.manifest_sha256 == results[1].cache.manifest_sha256


def test_the_tail_of_renormalised_probabilities_is_absent(
    rows: list[TopK], tokenizer_folder: Path, tmp_path: Path
) -> None:
    shares = [plain_row(r, logprobs=r.logprobs - np.log(np.exp(r.logprobs).sum(1))[:, None]) for r in rows]
    file = write_parquet(tmp_path / "rows.parquet", shares)
    result = import_cache(request(file, tokenizer_folder, is_renormalised=True), tmp_path / "out")
    assert "tail" in result.cache.manifest.layout.absent
    assert verify(shards.open(tmp_path / "out")) == []
    assert all(not chunk.tail_mass.any() for chunk in result.cache)


def test_other_names_of_columns(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    mass = [1 - np.exp(r.logprobs).sum(1) for r in rows]
    stored = [
        {"text": "x", "tokens": r.tokens, "top": r.ids, "lp": r.logprobs.astype(np.float32), "rest": m}
        for r, m in zip(rows, mass, strict=True)
    ]
    file = write_parquet(tmp_path / "rows.parquet", stored)
    columns = {"tokens": "tokens", "ids": "top", "logprobs": "lp", "tail": "rest"}
    import_cache(request(file, tokenizer_folder, columns=columns), tmp_path / "out")
    check_records(shards.open(tmp_path / "out"), rows, error=1e-4)


def test_a_broken_row_leaves_nothing(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    stored = [plain_row(r) for r in rows]
    stored[5]["token_ids"] = stored[5]["token_ids"] + VOCAB
    file = write_parquet(tmp_path / "in" / "rows.parquet", stored)
    with pytest.raises(ShardError, match=r"rows\.parquet row 5, column token_ids, position 0: found the id"):
        import_cache(request(file, tokenizer_folder), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_what_a_killed_import_left_is_removed(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "in" / "rows.parquet", [plain_row(r) for r in rows])
    left = run.temp_path(tmp_path / "out")
    dead = left.with_name(left.name.rsplit("-", 2)[0] + "-4194305-0.part")  # larger than any process id
    dead.mkdir()
    (dead / "000000.arrow").write_bytes(b"x")
    import_cache(request(file, tokenizer_folder), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_a_folder_with_content_is_refused(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "rows.parquet", [plain_row(r) for r in rows])
    with pytest.raises(ShardError, match="found a file or a folder with content, expected an empty folder or none"):
        import_cache(request(file, tokenizer_folder), tmp_path)


def test_rows_without_a_position_are_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"input_ids": pa.list_(pa.int64()), "token_ids": pa.list_(pa.list_(pa.int64()))}
    table = pa.table({"input_ids": [[1]], "token_ids": [[]], "logprobs": [[]]},
                     pa.schema({**kinds, "logprobs": pa.list_(pa.list_(pa.float32()))}))  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(ShardError, match="found no row of two tokens or more"):
        import_cache(request(tmp_path / "rows.parquet", tokenizer_folder), tmp_path / "out")


def test_the_command_line(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = write_distillkit(
        tmp_path / "captured", rows, {**SETTINGS, "exact_k": 10, "polynomial_terms": [0, 1, "sqrt"]}
    )
    arguments = ["import", str(folder), "--from", "distillkit", "--tokenizer", str(tokenizer_folder), "--teacher", "T"]
    out = tmp_path / "out"
    result = CliRunner().invoke(main, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert f"{out}: 7 rows, {sum(len(r.tokens) for r in rows):,} tokens, " in result.output
    shown = CliRunner().invoke(main, ["inspect", str(out)]).output
    assert "imported: the ids that were stored; not stored are draws of the tail, entropy" in shown
    assert "number of weights not known" in shown
    assert "of the realised tokens are in the head" in shown
    assert "not possible: an imported cache" in shown
    assert "?" in CliRunner().invoke(main, ["inspect", str(out), "--row", "1"]).output
    assert (
        CliRunner().invoke(main, ["inspect", str(out), "--row", "1", "--html", str(tmp_path / "p.html")]).exit_code == 0
    )
    assert CliRunner().invoke(main, ["verify", str(out)]).exit_code == 0
    again = CliRunner().invoke(main, [*arguments, "--out", str(out)])
    assert again.exit_code == 1
    assert again.output.strip().startswith("error: --out ")
    assert "\n" not in again.output.strip()
    wrong = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "b"), "--columns", "ids"])
    assert "expected KIND=NAME" in wrong.output


def test_a_published_import_says_what_it_lacks(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "rows.parquet", [plain_row(r) for r in rows])
    import_cache(request(file, tokenizer_folder), tmp_path / "out")
    for more, name in (([], "whole"), (["--without-tokens"], "bare")):
        published = CliRunner().invoke(main, ["publish", str(tmp_path / "out"), str(tmp_path / name), *more])
        assert published.exit_code == 0, published.output
        assert verify(shards.open(tmp_path / name)) == []
        assert "Not stored: draws of the tail, entropy" in (tmp_path / name / "README.md").read_text()


def test_lists_that_are_shifted_are_noticed(rows: list[TopK], tokenizer_folder: Path, tmp_path: Path) -> None:
    shifted = [plain_row(r, token_ids=(r.ids + 17) % VOCAB) for r in rows]
    file = write_parquet(tmp_path / "rows.parquet", shifted)
    arguments = ["import", str(file), "--from", "top-k-parquet", "--tokenizer", str(tokenizer_folder)]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out")])
    assert "are the lists shifted" in result.output.replace("\n", " ")
