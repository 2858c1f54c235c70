"""Tests of permutations and of the held-out rule."""

from __future__ import annotations

import hashlib

import numpy as np

from shards.format.chunk import RowInfo
from shards.format.messages import messages_json, messages_sha256
from student_train.data.hashing import HeldOutRule, is_held_out, permutation

GOLDEN = [4, 5, 7, 0, 1, 3, 6, 2]


def test_the_permutation_is_the_one_that_was_published() -> None:
    # A change here changes every run that ever was: tick ORDER_VERSION, and say so in the changelog.
    assert permutation(8, key="golden").tolist() == GOLDEN


def test_the_permutation_looks_uniform() -> None:
    places = np.array([permutation(4, key=str(i)) for i in range(4000)])
    counts = np.array([np.bincount(places[:, j], minlength=4) for j in range(4)])
    assert (np.abs(counts - 1000) < 5 * np.sqrt(750)).all()


def test_held_out_is_a_pure_share_of_documents() -> None:
    documents = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(4000)]
    held = [d for d in documents if is_held_out(d, fraction=0.05)]
    assert 140 < len(held) < 260
    assert all(is_held_out(d, fraction=0.2) for d in held)
    assert not any(is_held_out(d, fraction=0.0) for d in documents)


def row(*roles: str) -> RowInfo:
    messages = messages_json([{"role": role, "content": f"{role} {i}"} for i, role in enumerate(roles)])
    return RowInfo(
        document=messages_sha256(messages), window=0, byte_start=0, byte_end=1, source="s", path="p", licence="",
        context=3, messages=messages,
    )  # fmt: skip


def test_the_rule_of_a_cache_of_turns_asks_how_the_conversation_opens() -> None:
    plain, turns = HeldOutRule.of({}, fraction=0.5), HeldOutRule.of({"train_on": "all"}, fraction=0.5)
    assert plain == HeldOutRule.of({"train_on": "last"}, fraction=0.5) == HeldOutRule(fraction=0.5)
    opening = row("system", "user")
    later = [
        row("system", "user", *turn)
        for turn in (("assistant", "user"), ("assistant", "user", "assistant", "tool"), ("assistant", "assistant"))
    ]
    assert {turns.holds_out(info) for info in [opening, *later]} == {is_held_out(opening.document, fraction=0.5)}
    assert [plain.holds_out(info) for info in later] == [is_held_out(info.document, fraction=0.5) for info in later]
    for info in (opening, row("assistant", "user"), row("user")):  # nothing was answered before
        assert turns.holds_out(info) == plain.holds_out(info)


def test_all_caches_of_a_run_have_one_rule() -> None:
    turns = HeldOutRule(fraction=0.5, by_conversation=True)
    assert HeldOutRule.of({}, {"train_on": "last"}, {"train_on": "all"}, fraction=0.5) == turns
    assert HeldOutRule.of({}, {"train_on": "last"}, fraction=0.5) == HeldOutRule(fraction=0.5)
