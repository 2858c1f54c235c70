"""Tests of the words that replace names."""

from __future__ import annotations

import keyword

from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.tasks.private_api.words import Words

NAMES = st.from_regex(r"_{0,2}[a-zA-Z][a-zA-Z0-9_]{0,12}", fullmatch=True)


@settings(max_examples=30, deadline=None)
@given(st.sets(NAMES, min_size=1), st.integers(0, 5))
def test_words_are_distinct_identifiers_that_are_not_taken(names: set[str], seed: int) -> None:
    words = Words(seed=seed, taken=names)
    replaced = {name: words.word(name) for name in sorted(names)}
    assert len(set(replaced.values())) == len(names)
    taken = {name.lower() for name in names}
    for word in replaced.values():
        assert word.isidentifier()
        assert not keyword.iskeyword(word)
        assert word.lower() not in taken


def test_a_word_depends_on_the_seed_and_not_on_the_order() -> None:
    first, second = Words(seed=1, taken=()), Words(seed=1, taken=())
    assert [first.word("alpha"), first.word("beta")] == [second.word("beta"), second.word("alpha")][::-1]
    assert Words(seed=2, taken=()).word("alpha") != first.word("alpha")


def test_case_and_underscores_stay() -> None:
    words = Words(seed=0, taken=())
    assert words.word("_private")[:1] == "_"
    assert words.word("__deep")[:2] == "__"
    assert words.word("CONSTANT").isupper()
    assert words.word("SomeClass") == words.word("SomeClass").capitalize()
    assert words.word("PathAccessError").endswith("Error")
    assert words.word("camel2under").isalpha()
