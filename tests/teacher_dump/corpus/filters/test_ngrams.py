"""Tests of the normalised tokens and n-grams."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_dump.corpus.filters import ngrams

TOKENS = st.lists(
    st.sampled_from(["alpha", "beta", "gamma", "return", "len", "+", "[", "]", ".", "1.5", "'s'", "if", "delta"]),
    min_size=1,
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(tokens=TOKENS, n=st.integers(2, 12))
def test_renamed_ngrams_do_not_see_names_and_see_everything_else(tokens: list[str], n: int) -> None:
    def grams(some: list[str]) -> list[int]:
        return ngrams.renamed_ngrams(ngrams.code_tokens(" ".join(some)), n).tolist()

    other = {"alpha": "beta", "beta": "x1", "gamma": "alpha", "delta": "zeta"}
    swapped = [
        t if i and tokens[i - 1] == "." else other.get(t, t) for i, t in enumerate(tokens)
    ]  # attributes keep their names
    assert grams(swapped) == grams(tokens)
    plain = ngrams.code_tokens(" ".join(tokens))
    assert len(grams(tokens)) == max(0, len(plain) - n + 1)
    changed = ["len" if t == "+" else t for t in tokens]
    if changed != tokens and len(plain) >= n:
        assert grams(changed) != grams(tokens)


def test_layout_comments_and_spelling_do_not_change_code() -> None:
    first = 'def f(a,b = 0x10):\n    """Doc."""\n    return {"k" : a+b, \'q\': (1., 2e3)}  # why\n'
    second = (
        "# head\ndef f(\n    a,\n    b=16,\n):\n    return {\n        'k': a + b,\n"
        '        "q": (1.0, 2000.0),\n    }\n'
    )
    assert ngrams.code_tokens(first).tolist() == ngrams.code_tokens(second).tolist()
    assert (
        ngrams.code_tokens(first).tolist()
        != ngrams.code_tokens(first.replace("16", "17").replace("0x10", "17")).tolist()
    )
    assert ngrams.word_tokens("Two\\nwords, here!").tolist() == ngrams.word_tokens("two # words\n(here)").tolist()
