"""Tests of caches without tokens, and of restoring exactly the original tokens from a corpus."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.merge import merge
from shards.edit.publish import fetch, publish
from shards.edit.withdraw import withdraw
from shards.errors import CorruptShardError, ShardError, TokensRemovedError
from shards.format.manifest import FileEntry, ShardEntry
from shards.format.manifest import Tokenizer as TokenizerInfo
from shards.model_files.tokenizer import TokenizerRules
from shards.read import Cache
from shards.storage.atomic import write_atomic
from shards.verify import verify
from shards.write import ShardWriter
from tests.shards.conftest import LAYOUT, make_cache, make_manifest, make_row

PREFIX = (0,)


def write_corpus(folder: Path) -> None:
    """Write some sources, among them one whose characters are cut into several tokens."""
    for n in range(6):
        body = "\n\n".join(f"def f{n}_{i}(a, b):\n    return a + b * {i}" for i in range(4 + n))
        write_atomic(folder / f"{n}.py", body.encode())
    write_atomic(folder / "wide.py", ('x = "\u4f60\u597d \U0001f600 caf\u00e9"\n' * 5).encode())


def write_tokenizer(folder: Path) -> Any:
    """Write a byte-level tokenizer whose words are single bytes and a few pairs, and return it loaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("e", "f"), ("d", "ef"), ("\u0120", "\u0120")]
    words = ["<s>", *alphabet, *(a + b for a, b in merges)]
    inner = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>").save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a folder of sources."""
    write_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture
def cache(tmp_path: Path, corpus: Path) -> Cache:
    """Return a cache whose rows are windows of the corpus, with made-up records."""
    from teacher_dump.corpus.corpus import Corpus
    from teacher_dump.tasks.windowing import cut_windows

    folder = tmp_path / "cache"
    tokenizer = write_tokenizer(folder / "tokenizer")
    counts: Counter[str] = Counter()
    found = list(
        cut_windows(Corpus(data=str(corpus), seed=0), tokenizer, prefix_tokens=PREFIX, window_tokens=60, counts=counts)
    )
    assert counts["documents"] == 7
    assert any(w.info.window > 1 for w in found)
    rng = np.random.default_rng(0)
    entries: list[ShardEntry] = []
    for number, part in enumerate((found[::2], found[1::2])):
        writer = ShardWriter(
            folder, f"{number:06d}.arrow", layout=LAYOUT, task=str(number), fingerprint="f", chunk_tokens=200
        )
        with writer:
            for window in part:
                made = make_row(rng, tokens=len(window.tokens))
                writer.write(replace(made, info=window.info, tokens=window.tokens))
            entries.append(writer.close())
    files = []
    for path in sorted((folder / "tokenizer").iterdir()):
        raw = path.read_bytes()
        name = f"tokenizer/{path.name}"
        files.append(FileEntry(name=name, bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest()))
    about = TokenizerInfo(
        fingerprint=TokenizerRules.load(folder / "tokenizer").fingerprint(),
        vocab_size=LAYOUT.vocab_size,
        prefix_tokens=PREFIX,
    )
    manifest = replace(make_manifest(tuple(entries), tuple(files)), tokenizer=about)
    write_atomic(folder / "manifest.json", manifest.to_bytes())
    return shards.open(folder)


def without_text(cache: Cache, folder: Path) -> Cache:
    publish(cache, str(folder), without_tokens=True)
    return shards.open(folder)


def content(folder: Path) -> list[object]:
    """Return every row's origin, tokens and log-probs of the text."""
    return [
        (row.rows[0], row.tokens.tolist(), row.label_logp.tolist())
        for chunk in shards.open(folder)
        for row in (chunk.row(r) for r in range(len(chunk.rows)))
    ]


def test_the_text_leaves_and_comes_back_to_the_last_bit(cache: Cache, corpus: Path, tmp_path: Path) -> None:
    run = CliRunner()
    sent = run.invoke(main, ["publish", cache.store.root, str(tmp_path / "pub"), "--without-tokens"])
    assert sent.exit_code == 0, sent.output
    fetch(str(tmp_path / "pub"), tmp_path / "free")
    result = run.invoke(main, ["verify", str(tmp_path / "free")])
    assert result.exit_code == 0, result.output
    assert "sound, without its text" in result.output
    free = shards.open(tmp_path / "free")
    assert free.manifest_sha256 != cache.manifest_sha256
    assert free.manifest.rows_sha256 == cache.manifest.rows_sha256
    assert (free.rows, free.tokens) == (cache.rows, cache.tokens)

    result = run.invoke(
        main, ["hydrate", str(tmp_path / "free"), "--data", str(corpus), "--out", str(tmp_path / "whole")]
    )
    assert result.exit_code == 0, result.output
    assert f"hydrated {cache.rows} of {cache.rows} rows" in result.output
    whole = shards.open(tmp_path / "whole")
    assert verify(whole) == []
    assert content(tmp_path / "whole") == content(Path(cache.store.root))
    assert whole.manifest == cache.manifest, "nothing is missing, so it is the original again"
    assert not (tmp_path / "whole" / "missing.jsonl").exists()


def test_what_is_without_text_says_so_to_whoever_reads_rows(cache: Cache, tmp_path: Path) -> None:
    free = without_text(cache, tmp_path / "free")
    with pytest.raises(TokensRemovedError, match=r"chunk 0: .*without its tokens.*logit-shards hydrate"):
        free[0]
    assert json.loads((tmp_path / "free" / "manifest.json").read_bytes())["layout"]["tokens"] == "removed"
    table = pa.ipc.open_file(tmp_path / "free" / "000000.arrow").read_all()
    assert json.loads(table.schema.metadata[b"teacherless"])["layout"]["tokens"] == "removed"
    whole = pa.ipc.open_file(Path(cache.store.root) / "000000.arrow").read_all()
    assert table["tokens"].to_pylist() == [[]] * len(table)
    assert table.drop(["tokens"]).equals(whole.drop(["tokens"]))


def test_other_tools_open_a_shard_without_text(cache: Cache, tmp_path: Path) -> None:
    import datasets
    import polars

    without_text(cache, tmp_path / "free")
    data = datasets.load_dataset(str(tmp_path / "free"), split="train", cache_dir=str(tmp_path / "hf"))
    assert data.num_rows == cache.rows
    assert not any(data["tokens"][:])
    assert polars.read_ipc(tmp_path / "free" / "000000.arrow").height == cache.manifest.shards[0].rows


def test_rows_that_cannot_come_back_are_named(cache: Cache, corpus: Path, tmp_path: Path) -> None:
    without_text(cache, tmp_path / "free")
    gone = {"2.py", "wide.py"}
    (corpus / "2.py").unlink()
    (corpus / "wide.py").write_text((corpus / "wide.py").read_text() + "# a line more\n")
    result = CliRunner().invoke(
        main, ["hydrate", str(tmp_path / "free"), "--data", str(corpus), "--out", str(tmp_path / "part")]
    )
    assert result.exit_code == 0, result.output
    assert "the document is not in the corpus" in result.output
    listed = [json.loads(line) for line in (tmp_path / "part" / "missing.jsonl").read_text().splitlines()]
    assert {m["path"] for m in listed} == gone
    part = shards.open(tmp_path / "part")
    assert verify(part) == []
    assert part.rows + len(listed) == cache.rows
    whole = content(Path(cache.store.root))
    assert content(tmp_path / "part") == [r for r in whole if r[0].path not in gone]  # type: ignore[index]
    assert part.manifest.history[-1]["missing_rows"] == len(listed)


def test_a_row_comes_back_whichever_variant_of_its_document_was_kept(
    cache: Cache, corpus: Path, tmp_path: Path
) -> None:
    """The corpus also has a variant of each document, which a filter of the dump may have dropped."""
    from teacher_dump.hydrate import hydrate

    free = without_text(cache, tmp_path / "free")
    for path in sorted(corpus.glob("*.py")):
        for folder in ("a", "z"):  # before the document in the order of the source, and after it
            write_atomic(corpus / folder / path.name, path.read_bytes() + b" \n")
    result = hydrate(free, str(corpus), tmp_path / "whole")
    assert result.missing == ()
    assert content(tmp_path / "whole") == content(Path(cache.store.root))


def test_tokens_that_are_not_the_original_ones_are_never_taken(cache: Cache, corpus: Path, tmp_path: Path) -> None:
    """A tokenizer that cuts otherwise gives slices of the right bytes and length at most by accident."""
    from shards.edit.hydrate import hydrate, rows_without_tokens

    free = without_text(cache, tmp_path / "free")
    lengths = {n.number: n.num_tokens for n in rows_without_tokens(free)}
    with pytest.raises(ShardError, match="none of its rows could be hydrated"):
        hydrate(free, tmp_path / "no", lambda n: [np.zeros(lengths[n], np.int32), np.ones(3, np.int32)])
    assert not (tmp_path / "no" / "manifest.json").exists()
    truth = [c.row(r).tokens for c in cache for r in range(len(c.rows))]
    done = hydrate(free, tmp_path / "some", lambda n: [truth[n] + 1, truth[n]] if n % 2 else [truth[n] + 1])
    assert done.cache.rows == cache.rows // 2
    assert {m.why for m in done.missing} == {"the document's tokens are not those of the row"}
    assert verify(done.cache) == []


def test_a_cache_with_its_text_and_a_wrong_tokenizer_are_refused(cache: Cache, corpus: Path, tmp_path: Path) -> None:
    run = CliRunner()
    args = ["--data", str(corpus), "--out", str(tmp_path / "x")]
    result = run.invoke(main, ["hydrate", cache.store.root, *args])
    assert result.exit_code == 1
    assert "found a cache that has its tokens" in result.output
    free = without_text(cache, tmp_path / "free")
    other = replace(free.manifest, tokenizer=replace(free.manifest.tokenizer, fingerprint="0" * 64))
    (tmp_path / "free" / "manifest.json").write_bytes(other.to_bytes())
    result = run.invoke(main, ["hydrate", str(tmp_path / "free"), *args])
    assert result.exit_code == 1
    assert "found a tokenizer with fingerprint" in result.output


def test_a_cache_without_text_is_changed_like_any_other(cache: Cache, corpus: Path, tmp_path: Path) -> None:
    from teacher_dump.hydrate import hydrate

    free = without_text(cache, tmp_path / "free")
    name = cache[0].rows[0].document
    less = withdraw(free, (name,), tmp_path / "less").cache
    assert verify(less) == []
    whole = hydrate(less, str(corpus), tmp_path / "whole").cache
    assert verify(whole) == []
    assert content(tmp_path / "whole") == [r for r in content(Path(cache.store.root)) if r[0].document != name]  # type: ignore[index]
    assert [t.document for t in whole.manifest.tombstones] == [name]
    with pytest.raises(ShardError, match="layout's tokens"):
        merge([cache, free], tmp_path / "m")


def test_no_flipped_bit_of_a_cache_without_text_goes_unseen(tmp_path: Path) -> None:
    make_cache(tmp_path / "c", shards=1, rows=4, chunk_tokens=60)
    without_text(shards.open(tmp_path / "c"), tmp_path / "free")
    path = tmp_path / "free" / "000000.arrow"
    raw = path.read_bytes()
    for bit in range(0, 8 * len(raw), 8 * len(raw) // 60):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert verify(shards.open(tmp_path / "free"))


def test_records_without_text_that_contradict_each_other_are_seen(tmp_path: Path) -> None:
    """Records of a faulty writer: the digests are right, the lists contradict each other."""
    from shards.format.batch import decode_records, read_batch

    make_cache(tmp_path / "c", shards=1, rows=4)
    cache = shards.open(tmp_path / "c")
    free = without_text(cache, tmp_path / "free")
    layout = free.manifest.layout
    raw = free.chunk_bytes(0)[2]
    decode_records(layout, raw, where="test")
    with pytest.raises(CorruptShardError, match="tokens: found some"):
        decode_records(layout, cache.chunk_bytes(0)[2], where="test")
    batch = read_batch(layout, raw)
    for name in ("realised_codes", "head_count", "head_codes", "entropy_codes"):
        field = batch.schema.field(name)
        lists = batch.column(name).to_pylist()
        lists[0] = [0] * 10_000 if name == "realised_codes" else []
        column = pa.array(lists, field.type)
        bad = batch.set_column(batch.schema.get_field_index(name), field, column)
        with pytest.raises(CorruptShardError):
            decode_records(layout, bad.serialize().to_pybytes(), where="test")
