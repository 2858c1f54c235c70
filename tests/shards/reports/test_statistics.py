"""Tests of the statistics of a cache, compared with its decoded records."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import shards
from shards.format.batch import build_batch
from shards.reports.statistics import QUANTILES, captured_quantiles, field_bytes, reader_losses, tail_counts
from tests.shards.conftest import LAYOUT, make_cache, make_row


def test_quantiles_are_numpys_over_the_decoded_cache(reported: shards.Cache) -> None:
    captured = 1 - np.concatenate([c.tail_mass for c in reported]).astype(np.float64)
    expected = np.percentile(captured, QUANTILES, method="inverted_cdf")
    found = reported.manifest.report["captured_quantiles"]
    assert list(found) == [str(q) for q in QUANTILES]
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_quantiles_of_any_counts_are_numpys(seed: int) -> None:
    from shards.format.quantiser import tail_table

    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, int(rng.integers(1, 300)))
    found = captured_quantiles(np.bincount(codes, minlength=256))
    captured = 1 - tail_table()[codes] / 2**24
    assert list(found.values()) == pytest.approx(np.percentile(captured, QUANTILES, method="inverted_cdf"), abs=1e-6)


def test_tail_codes_are_counted(reported: shards.Cache) -> None:
    chunk = reported[0]
    counts = tail_counts(chunk)
    assert counts.sum() == len(chunk.tail_mass)
    from shards.format.quantiser import tail_table

    again = np.repeat(tail_table(), counts) / np.float32(2**24)
    assert np.array_equal(np.sort(again), np.sort(chunk.tail_mass))


def test_means_are_those_of_every_position_by_itself(reported: shards.Cache) -> None:
    report = reported.manifest.report
    rows = [0, 0, 0.0, 0.0, 0.0, 0.0]
    for chunk in reported:
        for p in range(len(chunk.tail_mass)):
            head = chunk.head_probs[chunk.head_starts[p] : chunk.head_starts[p + 1]].astype(np.float64)
            tau = float(chunk.tail_mass[p])
            undrawn = chunk.draw_starts[p] == chunk.draw_starts[p + 1]
            in_head = -float((head * np.log(head)).sum()) - (tau * math.log(tau) if tau else 0)
            even = tau * math.log(LAYOUT.vocab_size - len(head)) - (float(chunk.entropy[p]) - in_head)
            rows[0] += 1
            rows[1] += undrawn
            rows[2] += tau if undrawn else 0
            rows[3] += -math.log(1 - tau)
            rows[4] += even
            rows[5] += even if undrawn else 0
    names = ("without_draws", "bucket_mass", "kl_tail_dropped", "kl_tail_even", "kl_tail_even_undrawn")
    for name, total in zip(names, rows[1:], strict=True):
        assert report[name] == pytest.approx(total / rows[0], abs=2e-6), name


def test_the_expected_cost_of_quantisation_is_the_measured_one() -> None:
    rng = np.random.default_rng(0)
    rows = [make_row(rng, tokens=200) for _ in range(8)]
    expected, measured = [], []
    from shards.format.batch import decode_chunk
    from shards.format.schema import file_schema

    for row in rows:
        batch, _ = build_batch(LAYOUT, [row], file_schema(LAYOUT, task="t", fingerprint="f"))
        chunk = decode_chunk(LAYOUT, batch.serialize().to_pybytes(), where="test")
        expected.append(reader_losses(chunk, LAYOUT.vocab_size)["kl_quantised"])
        exact, owner = row.head_probs.astype(np.float64), np.repeat(np.arange(len(row.head_count)), row.head_count)
        tail = np.maximum(1 - np.bincount(owner, exact), 1e-12)
        kl = np.bincount(owner, exact * np.log(exact / chunk.head_probs))
        measured.append(kl + tail * np.log(tail / np.maximum(chunk.tail_mass, 2.0**-25)))
    assert np.concatenate(expected).mean() == pytest.approx(np.concatenate(measured).mean(), rel=0.15)


def test_bytes_by_field_are_the_bytes_of_the_chunk(tmp_path: Path) -> None:
    make_cache(tmp_path, shards=1, rows=40, chunk_tokens=10_000)
    cache = shards.open(tmp_path)
    _, entry, raw = cache.chunk_bytes(0)
    sizes = field_bytes(LAYOUT, raw)
    assert sum(sizes.values()) == entry.length
    # What is not a field's own buffer is the row's origin and Arrow's header: small, and never negative.
    assert 0 < sizes["origin and digests"] < 0.3 * entry.length
    assert sizes["draws"] > sizes["tail mass"]
