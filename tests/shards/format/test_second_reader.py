"""A second reader, written from docs/format.md alone with pyarrow and the standard library.

It shares no code with the package, decodes position by position in plain Python, and must agree to the last bit.

No counterpart: it tests that docs/format.md describes what the package writes.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import shards
from tests.shards.conftest import make_cache, make_partial_cache, make_relation_cache, make_response_cache

UNIT = 2**24


def read_manifest(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    assert data["format"] == "teacherless-shards"
    assert data["version"] in (1, 2)
    assert ("writer" in data) == (data["version"] == 2)
    promised = data.pop("sha256")
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert hashlib.sha256(text.encode()).hexdigest() == promised
    return data


def read_chunk(folder: Path, manifest: dict[str, Any], shard: dict[str, Any], chunk: list[Any]) -> dict[str, list[Any]]:
    offset, length, rows, tokens, sha256 = chunk
    raw = (folder / shard["name"]).read_bytes()[offset : offset + length]
    assert hashlib.sha256(raw).hexdigest() == sha256
    schema = pa.ipc.open_file(folder / shard["name"]).schema
    columns = pa.ipc.read_record_batch(pa.ipc.read_message(raw), schema).to_pydict()
    assert len(columns["tokens"]) == rows
    assert ({"relation_codes", "relation_scales"} <= set(columns)) == ("relations" in manifest["layout"])
    assert sum(map(len, columns["tokens"])) == tokens
    return columns


def decode_row(layout: dict[str, Any], columns: dict[str, list[Any]], r: int) -> list[dict[str, Any]]:
    row = {name: values[r] for name, values in columns.items()}
    absent = layout.get("absent", [])
    planes = [row[name] for name in sorted(row) if name.startswith("draw_gaps_")]
    heads, codes, realised = iter(row["head_ids"]), iter(row["head_codes"]), iter(row["realised_codes"])
    gaps = iter([sum(b << 8 * k for k, b in enumerate(bits)) for bits in zip(*planes, strict=True)])
    positions = []
    for p, token in enumerate(row["tokens"][row.get("context", 1) :]):
        n = row["head_count"][p]
        tau = round(UNIT * math.sin(row["tail_codes"][p] * math.pi / 510) ** 2) if n else UNIT
        ids = [next(heads) for _ in range(n)]
        coded = [round(UNIT * math.sin(next(codes) * math.pi / 1020) ** 2) for _ in range(n - 1)]
        probs = ([UNIT - tau - sum(coded)] if n else []) + coded
        assert all(q >= 0 for q in probs)
        expected = 0
        if tau >= layout["tail_floor"] * UNIT:
            expected = math.ceil(tau / (layout["threshold"] * UNIT) - 1e-9)
        draws: list[int] = []
        for _ in range(0 if "draws" in absent else (expected + row["draw_surplus"][p]) % 256):
            draws.append(next(gaps) + (draws[-1] if draws else 0))
        if token in ids:
            log_prob = math.log(probs[ids.index(token)] / UNIT)
        elif "realised" in absent:
            log_prob = math.nan
        else:
            log_prob = -next(realised) * layout["realised_step"]
        positions.append(
            {
                "head": dict(zip(ids, probs, strict=True)),
                "tau": tau,
                "draws": draws,
                "realised": log_prob,
                "entropy": math.nan
                if "entropy" in absent
                else (row["entropy_codes"][p] / 255) ** 2 * layout["entropy_max"],
                "whitespace": math.nan
                if "whitespace" in absent
                else round(UNIT * math.sin(row["whitespace_codes"][p] * math.pi / 510) ** 2),
                "log_z": [
                    (row[f"log_z_codes_{z}"][p] - 32768) * layout["log_z_step"]
                    for z in range(len(layout["temperatures"]))
                ],
            }
        )
    return positions


def decode_relations(layout: dict[str, Any], columns: dict[str, list[Any]], r: int) -> list[list[list[list[float]]]]:
    """Return the vectors of a row: by position, kind and head."""
    facts = layout["relations"]
    assert set(facts) == {"layer", "heads", "widths", "dims", "seed"}
    widths = [min(width, facts["dims"]) for width in facts["widths"]]
    codes, scales = iter(columns["relation_codes"][r]), iter(columns["relation_scales"][r])
    num_values = facts["heads"] * sum(widths)
    num_positions = len(columns["relation_codes"][r]) // num_values
    assert len(columns["relation_codes"][r]) == num_values * num_positions
    assert num_positions in (0, len(columns["tail_codes"][r]))
    positions = []
    for _ in range(num_positions):
        kinds = []
        for width in widths:
            heads = []
            for _ in range(facts["heads"]):
                scale = next(scales)
                vector = [next(codes) for _ in range(width)]
                assert max(map(abs, vector)) in (range(128) if scale == 0 else range(117, 128))
                step = np.float32(2 ** ((scale - 192) / 8))
                heads.append([float(np.float32(code) * step) for code in vector])
            kinds.append(heads)
        positions.append(kinds)
    assert next(scales, None) is None
    return positions


def row_digest(columns: dict[str, list[Any]], r: int, schema: pa.Schema) -> bytes:
    digest = hashlib.sha256()
    for field in schema:
        if field.name == "row_sha256":
            break
        value = columns[field.name][r]
        if isinstance(value, int):
            raw = value.to_bytes(8, "little")
        elif isinstance(value, list):
            width = {"int8": 1, "uint8": 1, "uint16": 2, "uint32": 4}[str(field.type.value_type)]
            raw = b"".join(v.to_bytes(width, "little", signed=field.type.value_type == pa.int8()) for v in value)
        else:
            raw = value.encode() if isinstance(value, str) else value
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.digest()


def check_conversation(columns: dict[str, list[Any]], r: int) -> None:
    """Check what the page says of a conversation."""
    text, document = columns["messages"][r], columns["document"][r]
    assert 1 <= columns["context"][r] <= len(columns["tokens"][r])
    if not text:
        return
    messages = json.loads(text)
    assert [set(m) for m in messages] == [{"role", "content"}] * len(messages)
    assert text == json.dumps(messages, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert document == hashlib.sha256(text.encode()).digest()
    assert columns["byte_start"][r] == 0


def same(value: np.float32, said: float) -> bool:
    """Return whether a value is what the page says, NaN for what is absent."""
    return bool(np.array_equal(value, np.float32(said), equal_nan=True))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("has_relations", [False, True])
def test_a_reader_written_from_the_page_agrees_to_the_last_bit(
    version: int, has_relations: bool, tmp_path: Path
) -> None:
    if has_relations:
        make_relation_cache(tmp_path, version=version)
    else:
        (make_cache if version == 1 else make_response_cache)(tmp_path)
    compare(tmp_path, version=version, has_relations=has_relations)


def test_it_knows_what_is_absent(tmp_path: Path) -> None:
    make_partial_cache(tmp_path)
    compare(tmp_path, version=1, has_relations=False)


def compare(tmp_path: Path, *, version: int, has_relations: bool) -> None:
    manifest, cache = read_manifest(tmp_path), shards.open(tmp_path)
    assert manifest["version"] == version
    layout = manifest["layout"]
    number = 0
    shard_digests = []
    for shard in manifest["shards"]:
        rows_digest = hashlib.sha256()
        schema = pa.ipc.open_file(tmp_path / shard["name"]).schema
        for entry in shard["chunks"]:
            columns = read_chunk(tmp_path, manifest, shard, entry)
            ours = cache[number]
            number += 1
            for r in range(len(columns["tokens"])):
                row = ours.row(r)
                assert row.tokens.tolist() == columns["tokens"][r]
                if version == 2:
                    check_conversation(columns, r)
                    info = row.rows[0]
                    assert (info.context, info.messages) == (columns["context"][r], columns["messages"][r])
                positions = decode_row(layout, columns, r)
                assert len(positions) == len(row.entropy)
                for p, said in enumerate(positions):
                    head = slice(int(row.head_starts[p]), int(row.head_starts[p + 1]))
                    found = dict(zip(row.head_ids[head].tolist(), row.head_probs[head].tolist(), strict=True))
                    assert found == {i: q / UNIT for i, q in said["head"].items()}
                    assert sum(said["head"].values()) + said["tau"] == UNIT
                    assert row.tail_mass[p] == said["tau"] / UNIT
                    assert row.draw_ids[row.draw_starts[p] : row.draw_starts[p + 1]].tolist() == said["draws"]
                    assert same(row.label_logp[p], said["realised"])
                    assert same(row.entropy[p], said["entropy"])
                    assert row.log_z[p].tolist() == said["log_z"]
                    whitespace = float(np.exp(np.float64(row.whitespace_logp[p]))) * UNIT
                    assert whitespace == pytest.approx(said["whitespace"], abs=2.5, nan_ok=True)
                if has_relations:
                    assert row.relations is not None
                    vectors = [kind.tolist() for kind in row.relations.vectors()]
                    assert [list(kinds) for kinds in zip(*vectors, strict=True)] == decode_relations(layout, columns, r)
                digest = row_digest(columns, r, schema)
                assert digest == columns["row_sha256"][r]
                rows_digest.update(digest)
        assert rows_digest.hexdigest() == shard["rows_sha256"]
        shard_digests.append(rows_digest.hexdigest())
    assert number == len(cache)
    total = hashlib.sha256("".join(shard_digests).encode()).hexdigest()
    assert total == manifest["totals"]["rows_sha256"] == cache.manifest.rows_sha256
