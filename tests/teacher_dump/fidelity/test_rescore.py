"""Tests of the check: honest records pass, one changed value is found, other teachers are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner

import shards
from shards.edit.rewrite import rewrite
from shards.format.batch import row_digest
from shards.verify import verify
from teacher_dump.fidelity.rescore import check, sample_rows
from teacher_dump.model.teachers import resolve
from tests.teacher_dump.fidelity.conftest import ALL
from tests.teacher_dump.helpers import run_command


def changed(settings: Any, out: Path, change: Callable[[dict[str, np.ndarray], Any], None]) -> Any:
    """Copy the cache with its first row's streams changed and every digest made to fit; return settings for it."""
    cache = shards.open(settings.out)
    layout, entry = cache.manifest.layout, cache.manifest.shards[0]
    seen = 0

    def edit(batch: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal seen
        seen += 1
        if seen > 1:
            return batch
        info = cache[0].rows[0]
        lists = [f.name for f in batch.schema if pa.types.is_list(f.type)]
        first = {n: batch.column(n)[0].values.to_numpy().copy() for n in lists}
        change(first, cache)
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for name, values in first.items():
            kind = batch.schema.field(name).type
            columns[name] = pa.concat_arrays([pa.array([values], kind), batch.column(name).slice(1)])
        digests = [row_digest(info, first, batch.schema), *batch.column("row_sha256").to_pylist()[1:]]
        columns["row_sha256"] = pa.array(digests, pa.binary())
        return pa.RecordBatch.from_arrays([columns[n] for n in batch.schema.names], schema=batch.schema)

    out.mkdir()
    for path in settings.out.rglob("*"):
        if path.is_file() and path.name not in ("manifest.json", "check.json"):
            (out / path.relative_to(settings.out)).parent.mkdir(exist_ok=True)
            (out / path.relative_to(settings.out)).write_bytes(path.read_bytes())
    new = rewrite(settings.out / entry.name, entry, edit, layout=layout, out=out)
    assert new is not None
    manifest = replace(cache.manifest, shards=(new, *cache.manifest.shards[1:]))
    (out / "manifest.json").write_bytes(manifest.to_bytes())
    assert verify(shards.open(out)) == []
    return replace(settings, out=out)


def test_records_of_an_unchanged_cache_pass(made: Any) -> None:
    found = check(made, ALL)
    cache = shards.open(made.out)
    assert found["sound"], found["problems"]
    assert found["problems"] == []
    assert (found["rows"], found["positions"]) == (cache.rows, cache.tokens - cache.rows)
    assert found["reference"]["dtype"] == "float64"
    for name in ("draws", "head ids"):
        assert found["stored"][name]["agree"] > 0.99
    json.dumps(found, allow_nan=False)


def raise_a_head_probability(streams: dict[str, np.ndarray], cache: Any) -> None:
    counts = streams["head_count"].astype(int)
    p = int(np.argmax(counts == 2))  # the second of two, so that the order stays
    at = int((np.maximum(counts, 1) - 1)[:p].sum())
    assert streams["head_codes"][at] > 30
    streams["head_codes"][at] -= 12


def lower_a_tail(streams: dict[str, np.ndarray], cache: Any) -> None:
    # Between two tails with as many draws, so that nothing else has to change.
    from shards.format.quantiser import expected_draws

    layout = cache.manifest.layout
    expected = expected_draws(layout.threshold, layout.tail_floor)
    tails = streams["tail_codes"]
    at, new = next((p, t) for p in range(len(tails)) for t in range(int(tails[p]) - 4, 0, -1)
                   if expected[t] == expected[tails[p]] and tails[p] - t == 4)  # fmt: skip
    tails[at] = new


def move_a_draw(streams: dict[str, np.ndarray], cache: Any) -> None:
    # The first draw of a position with many moves to the id below it; the gap after it makes up for that.
    row = cache[0].row(0)
    counts = np.diff(row.draw_starts)
    p = int(counts.argmax())
    at = int(row.draw_starts[p]) + int(counts[p]) // 2
    heads = set(row.head_ids[row.head_starts[p] : row.head_starts[p + 1]].tolist())
    ids = row.draw_ids[row.draw_starts[p] : row.draw_starts[p + 1]].tolist()
    old, last = ids[counts[p] // 2], ids[counts[p] // 2 - 1]
    new = next(i for i in range(last, old) if i not in heads)
    assert old - new > 8
    moved = old - new
    for plane in range(cache.manifest.layout.id_bytes):
        gaps = streams[f"draw_gaps_{plane}"]
        before, after = int(row_gap(streams, at, cache)), int(row_gap(streams, at + 1, cache))
        if plane == 0:
            values = (before - moved, after + moved)
        gaps[at], gaps[at + 1] = ((v >> (8 * plane)) & 0xFF for v in values)


def row_gap(streams: dict[str, np.ndarray], at: int, cache: Any) -> int:
    planes = range(cache.manifest.layout.id_bytes)
    return sum(int(streams[f"draw_gaps_{plane}"][at]) << (8 * plane) for plane in planes)


def change_a_scalar(name: str) -> Callable[[dict[str, np.ndarray], Any], None]:
    def change(streams: dict[str, np.ndarray], cache: Any) -> None:
        streams[name][3] = streams[name][3] + 5 if streams[name][3] < 250 else streams[name][3] - 5

    return change


def swap_head_ids(streams: dict[str, np.ndarray], cache: Any) -> None:
    heads = set(cache[0].row(0).head_ids[: streams["head_count"][0]].tolist())
    drawn = set(cache[0].row(0).draw_ids[: np.diff(cache[0].row(0).draw_starts)[0]].tolist())
    taken = heads | drawn | {int(streams["tokens"][1])}
    assert streams["tokens"][1] not in heads
    streams["head_ids"][0] = next(i for i in range(cache.manifest.layout.vocab_size) if i not in taken)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (raise_a_head_probability, "head probabilities"),
        (lower_a_tail, "tail mass"),
        (move_a_draw, "draws"),
        (change_a_scalar("log_z_codes_1"), "log Z"),
        pytest.param(swap_head_ids, "head ids", marks=pytest.mark.slow),
        pytest.param(change_a_scalar("entropy_codes"), "entropy", marks=pytest.mark.slow),
        pytest.param(change_a_scalar("whitespace_codes"), "whitespace mass", marks=pytest.mark.slow),
        pytest.param(change_a_scalar("realised_codes"), "realised token", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_one_changed_value_is_found_although_every_digest_matches(
    made: Any, tmp_path: Path, change: Any, named: str
) -> None:
    found = check(changed(made, tmp_path / "c", change), ALL)
    assert not found["sound"]
    worst = [p for p in found["problems"] if p.startswith(f"{named}: row 0 position")]
    assert len(worst) == 1
    assert "the records do not come from these weights" in worst[0]


def other_weights(teacher: Path, out: Path) -> Path:
    """Return a copy of a teacher with slightly other weights."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(teacher)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn_like(weight)
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (out / name).write_bytes((teacher / name).read_bytes())
    return out


def test_a_cache_of_other_weights_is_refused_and_detected_under_a_false_name(
    made: Any, tiny_teacher: Path, tmp_path: Path
) -> None:
    other = other_weights(tiny_teacher, tmp_path / "other")
    with pytest.raises(shards.ShardError, match=rf"--model other: its weights.*was made by {tiny_teacher.name}"):
        check(replace(made, model=str(other)), 2)
    # The manifest claims the other weights.
    cache = shards.open(made.out)
    teacher = replace(cache.manifest.teacher, weights_sha256=resolve(str(other)).teacher.weights_sha256)
    for path in made.out.rglob("*"):
        if path.is_file():
            (tmp_path / "lie" / path.relative_to(made.out)).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / "lie" / path.relative_to(made.out)).write_bytes(path.read_bytes())
    (tmp_path / "lie" / "manifest.json").write_bytes(replace(cache.manifest, teacher=teacher).to_bytes())
    found = check(replace(made, model=str(other), out=tmp_path / "lie"), 3)
    assert not found["sound"]
    assert any(p.startswith("log Z") for p in found["problems"])


def test_another_tokenizer_is_refused_by_name(made: Any, tiny_teacher: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_teacher.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    rules = json.loads((other / "tokenizer.json").read_text())
    rules["model"]["merges"] = rules["model"]["merges"][:-1]
    (other / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(shards.ShardError, match="--model other: its tokenizer is"):
        check(replace(made, model=str(other)), 2)


def test_the_sample_is_seeded_and_without_repeats(made: Any) -> None:
    cache = shards.open(made.out)

    def numbers(num_rows: int, seed: int) -> list[int]:
        return [row.number for row in sample_rows(cache, num_rows, seed)]

    rows = sample_rows(cache, 5, 0)
    assert numbers(5, 0) == numbers(5, 0) != numbers(5, 1)
    assert len(set(numbers(5, 0))) == 5
    whole = [c.row(r) for c in cache for r in range(len(c.rows))]
    assert all(np.array_equal(whole[r.number].tokens, r.stored.tokens) for r in rows)
    assert numbers(ALL, 0) == list(range(cache.rows))


def test_the_command_prints_a_table_and_inspect_shows_the_check(made: Any, tmp_path: Path) -> None:
    from shards.cli import main as inspect

    arguments = ["--model", made.model, "--out", str(made.out), "--check", "3"]
    result = run_command(*arguments)
    assert result.exit_code == 0, result.output
    assert "head probabilities" in result.output
    found = json.loads((made.out / "check.json").read_bytes())
    assert found["rows"] == 3
    assert found["manifest_sha256"] == shards.open(made.out).manifest_sha256
    assert verify(shards.open(made.out)) == []
    shown = CliRunner().invoke(inspect, ["inspect", str(made.out)]).output
    assert "3 of " in shown
    assert "nothing is off by more than rounding and noise" in shown
    # Beside another cache it says nothing.
    (made.out / "check.json").write_text(json.dumps({**found, "manifest_sha256": "0" * 64}))
    assert (
        "is of another cache (manifest 000000000000)" in CliRunner().invoke(inspect, ["inspect", str(made.out)]).output
    )
    elsewhere = run_command(*arguments, "--check-file", str(tmp_path / "here.json"), "--json")
    assert json.loads(elsewhere.stdout)["sound"]
    assert json.loads((tmp_path / "here.json").read_bytes())["rows"] == 3


def test_a_wrong_cache_exits_with_1_and_names_the_place(made: Any, tmp_path: Path) -> None:
    wrong = changed(made, tmp_path / "c", raise_a_head_probability)
    result = run_command("--model", made.model, "--out", str(wrong.out), "--check", str(ALL))
    assert result.exit_code == 1
    assert "head probabilities: row 0 position" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "0"], "--check 0: expected at least 1 row"),
        (["--check", "2", "--out", "nowhere"], "found no manifest.json"),
        (["--check", "2", "--plan"], "--check and --plan"),
        (["--check-file", "x.json"], "--check-file goes with --check"),
    ],
)
def test_bad_requests_are_one_line(made: Any, arguments: list[str], message: str) -> None:
    result = run_command("--model", made.model, "--out", str(made.out), *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.output
