"""Tests of rows of top-k log-probabilities: what becomes of them, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shards.errors import ShardError
from shards.format.batch import Row
from shards.imports.top_k import SMALLEST_HEAD, RowMaker, StoredRow
from tests.shards.imports.conftest import END, PAD, VOCAB, TopK, make_top_k

COLUMNS = {"tokens": "input_ids", "ids": "token_ids", "logprobs": "logprobs", "tail": "tail_mass", "mask": "mask"}


def stored(row: TopK, **more: Any) -> StoredRow:
    return StoredRow(
        where="file.parquet row 3",
        columns=COLUMNS,
        tokens=row.tokens,
        counts=np.full(len(row.ids), row.ids.shape[1]),
        ids=row.ids.ravel(),
        logprobs=row.logprobs.ravel(),
        **more,
    )


def maker(**more: Any) -> RowMaker:
    settings: dict[str, Any] = {"vocab_size": VOCAB, "pad_token": None, "is_renormalised": False, "source": "folder"}
    return RowMaker(token_bytes={i: bytes([i]) for i in range(256)} | {END: b""}, **(settings | more))


def heads(row: Row) -> list[dict[int, float]]:
    """Return the head of each position."""
    ends = np.cumsum(row.head_count)
    ids, probs = np.split(row.head_ids, ends[:-1]), np.split(row.head_probs, ends[:-1])
    return [dict(zip(i.tolist(), p.tolist(), strict=True)) for i, p in zip(ids, probs, strict=True)]


@pytest.fixture
def row() -> TopK:
    return make_top_k(np.random.default_rng(0), length=12)


def test_the_head_is_what_was_stored(row: TopK) -> None:
    (made,) = maker().rows(stored(row))
    assert made.tokens.tolist() == row.tokens.tolist()
    for position, head in enumerate(heads(made)):
        pairs = zip(row.ids[position].tolist(), np.exp(row.logprobs[position]), strict=True)
        kept = {i: p for i, p in pairs if p >= SMALLEST_HEAD}
        assert head == pytest.approx(kept, rel=1e-6)
    assert np.isnan(made.label_logp).all()
    assert np.isnan(made.entropy).all()
    assert made.info.path == "file.parquet#3.0"
    assert made.info.byte_end == sum(t < 256 for t in row.tokens)


def test_entries_need_no_order_and_padding_of_them_is_left_out(row: TopK) -> None:
    order = np.random.default_rng(1).permutation(row.ids.shape[1])
    padded = replace(
        row,
        ids=np.concatenate([row.ids[:, order], np.full((len(row.ids), 2), 10**9)], 1),
        logprobs=np.concatenate([row.logprobs[:, order], np.full((len(row.ids), 2), -np.inf)], 1),
    )
    (expected,), (made,) = maker().rows(stored(row)), maker().rows(stored(padded))
    assert heads(made) == heads(expected)


def test_lists_may_be_aligned_in_three_ways(row: TopK) -> None:
    """One for each token but the first; one more after the last token; an empty one before the first."""
    (expected,) = maker().rows(stored(row))
    more = make_top_k(np.random.default_rng(5), length=2)
    ids, logprobs = np.concatenate([row.ids, more.ids]), np.concatenate([row.logprobs, more.logprobs])
    after = replace(row, ids=ids, logprobs=logprobs)
    (made,) = maker().rows(stored(after))
    assert heads(made) == heads(expected)
    (made,) = maker().rows(replace(stored(row), counts=np.array([0, *stored(row).counts])))
    assert heads(made) == heads(expected)


def test_packed_texts_become_rows_of_their_own(row: TopK) -> None:
    other = make_top_k(np.random.default_rng(7), length=9)
    # Each text keeps a list after its last token, whose label was cut off; padding has some, too.
    first, last = [*range(len(row.ids)), 0], [*range(len(other.ids)), 0, 0, 1]
    joined = TopK(
        tokens=np.concatenate([row.tokens, other.tokens, [PAD, PAD]]),
        ids=np.concatenate([row.ids[first], other.ids[last]]),
        logprobs=np.concatenate([row.logprobs[first], other.logprobs[last]]),
        full=row.full,
    )
    mask = np.array([1] * len(row.tokens) + [2] * len(other.tokens) + [0, 0])
    one, two = maker().rows(stored(joined, mask=mask))
    for made, text in ((one, row), (two, other)):
        (expected,) = maker().rows(stored(text))
        assert made.tokens.tolist() == text.tokens.tolist()
        assert heads(made) == heads(expected)
    assert two.info.path == "file.parquet#3.1"


def test_padding_tokens_at_the_end_are_no_text(row: TopK) -> None:
    padded = replace(row, tokens=np.array([*row.tokens[:-3], PAD, PAD, PAD]))
    rows = maker(pad_token=PAD)
    (made,) = rows.rows(stored(padded))
    assert made.tokens.tolist() == row.tokens[:-3].tolist()
    assert rows.counts["padding tokens"] == 3
    (kept,) = maker().rows(stored(padded))
    assert len(kept.tokens) == len(row.tokens)


def test_a_text_of_one_token_has_no_position(row: TopK) -> None:
    rows = maker()
    mask = np.array([1] + [2] * (len(row.tokens) - 1))
    (made,) = rows.rows(stored(row, mask=mask))
    assert made.tokens.tolist() == row.tokens[1:].tolist()
    assert rows.counts["texts of one token"] == 1


def test_the_same_text_twice_is_two_windows_of_it(row: TopK) -> None:
    rows = maker()
    infos = [made.info for _ in range(3) for made in rows.rows(stored(row))]
    assert len({info.document for info in infos}) == 1
    assert [info.window for info in infos] == [0, 1, 2]


def test_renormalised_probabilities_stay_so(row: TopK) -> None:
    (made,) = maker(is_renormalised=True).rows(stored(row))
    for position, head in enumerate(heads(made)):
        kept = np.exp(row.logprobs[position])
        kept = kept[kept >= SMALLEST_HEAD]
        assert list(head.values()) == pytest.approx(kept / kept.sum(), rel=1e-6)


def test_a_stored_tail_scales_what_was_renormalised(row: TopK) -> None:
    mass = np.exp(row.logprobs).sum(1)
    shares = replace(row, logprobs=row.logprobs - np.log(mass)[:, None])
    (expected,) = maker().rows(stored(row))
    for form in (shares, row):
        (made,) = maker().rows(stored(form, tail=1 - mass))
        for a, b in zip(heads(made), heads(expected), strict=True):
            assert a == pytest.approx(b, rel=1e-4)


def test_more_entries_than_a_head_holds_join_the_tail() -> None:
    row = make_top_k(np.random.default_rng(0), length=4, k=VOCAB)
    rows = maker()
    (made,) = rows.rows(stored(replace(row, logprobs=np.full_like(row.logprobs, -np.log(VOCAB)))))
    assert made.head_count.tolist() == [255] * 3
    assert rows.counts["entries that joined the tail"] == 3 * (VOCAB - 255)


def broken(row: TopK, *, entry: tuple[int, int] = (2, 1), ident: int | None = None, logp: float | None = None) -> TopK:
    ids, logprobs = row.ids.copy(), row.logprobs.copy()
    if ident is not None:
        ids[entry] = ident
    if logp is not None:
        logprobs[entry] = logp
    return replace(row, ids=ids, logprobs=logprobs)


HOSTILE: dict[str, Any] = {
    "column token_ids, position 2: found the id 300, expected 0 to 299": lambda r: stored(broken(r, ident=VOCAB)),
    "column token_ids, position 2: found the id -1, expected 0": lambda r: stored(broken(r, ident=-1)),
    "twice, expected each id once": lambda r: stored(broken(r, ident=int(r.ids[2, 0]))),
    "column logprobs, position 2: found nan, expected natural logs": lambda r: stored(broken(r, logp=np.nan)),
    "column logprobs, position 2: found inf, expected natural logs": lambda r: stored(broken(r, logp=np.inf)),
    "column logprobs, position 2: found 0.7, expected natural logs": lambda r: stored(broken(r, logp=0.7)),
    "column logprobs, position 2: found probabilities that sum to 1.": lambda r: stored(broken(r, logp=0.0)),
    "column input_ids, position 4: found the id 70000": lambda r: stored(
        replace(r, tokens=np.where(np.arange(len(r.tokens)) == 4, 70_000, r.tokens))
    ),
    "found 11 lists for 14 tokens in column input_ids, expected 13": lambda r: stored(
        replace(r, tokens=np.array([*r.tokens, 1, 2]))
    ),
    "found 11 lists for 0 tokens": lambda r: stored(replace(r, tokens=r.tokens[:0])),
    "position 0: found no entries, expected at least one": lambda r: stored(
        replace(r, logprobs=np.where(np.arange(len(r.ids))[:, None] == 0, -np.inf, r.logprobs))
    ),
    "column tail_mass, position 1: found the probability -0.1, expected 0 to 1": lambda r: stored(
        r, tail=np.where(np.arange(len(r.ids)) == 1, -0.1, 1 - np.exp(r.logprobs).sum(1))
    ),
    "column tail_mass, position 0: found probabilities that sum to": lambda r: stored(r, tail=np.full(len(r.ids), 0.9)),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_what_no_teacher_gives_is_refused_with_row_and_column(message: str, row: TopK) -> None:
    with pytest.raises(ShardError, match=r"^file\.parquet row 3, column ") as refused:
        list(maker().rows(HOSTILE[message](row)))
    assert re.search(re.escape(message), str(refused.value)), str(refused.value)
