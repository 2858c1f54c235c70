"""Normalised token hashes of texts, and n-grams of them.

Three views, each invariant under other changes:

- `word_tokens`: letters and digits of the whole text, in lower case. Invariant under rewrapping, punctuation, and
  moving the text into a comment or a string.
- `code_tokens`: tokens of Python source without comments, docstrings, white space, and the punctuation that formatters
  add and remove. Invariant under layout and comments. A regular expression finds them, so that any text has tokens.
- `renamed_ngrams` of code tokens: inside each n-gram, a name that is not a keyword, builtin or attribute is replaced
  by the distance to its previous occurrence in the n-gram (Baker, "A theory of parameterized pattern matching", STOC
  1993). Also invariant under consistent renaming.

Hashes depend on the content alone (blake2b), so they are the same in every process and on every machine.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import keyword
import re

import numpy as np
import numpy.typing as npt

VERSION = 1
"""Version of the rules below. Other rules keep other documents, so it is part of a cache's identity."""

Hashes = npt.NDArray[np.uint64]
"""Hashes of consecutive tokens or n-grams, uint64 [N]."""

_MEMO_TOKENS = 200_000
"""Distinct tokens whose hashes are memoised (about 30 MB)."""

_TRIPLE = r'"""[\s\S]*?"""|' + r"'''[\s\S]*?'''"
_TOKEN = re.compile(
    rf"""\n[ \t]*[rRuU]?(?:{_TRIPLE})"""  # a docstring: a triple-quoted string that begins a line
    r"""|\#[^\n]*"""
    rf"""|[rRbBuUfF]{{0,2}}(?:{_TRIPLE}|"(?:[^"\\\n]|\\[\s\S])*"|'(?:[^'\\\n]|\\[\s\S])*')"""
    r"""|\d\w*(?:\.\w*)?(?:(?<=[eE])[+-]\d+)?|\.\d\w*|\w+"""
    r"""|->|:=|\*\*|//|[<>=!]=|<<|>>|[^\s\w(),;\\]"""
)
_WORD = re.compile(r"[^\W_]+")
_ESCAPE = re.compile(r"\\[nrt]")
_QUOTES = re.compile(r"""^[rRbBuUfF]{0,2}|['"\\]""")
_NOT_RENAMED = {*keyword.kwlist, *dir(builtins)} - {"_"}
_IS_NAME = np.uint64(1)
_NO_TOKEN = 0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class _WordHashes(dict[str, int]):
    """Memo of word hashes."""

    def __missing__(self, token: str) -> int:
        value = self[token] = _hash(token)
        return value


class _CodeHashes(dict[str, int]):
    """Memo of token hashes. The lowest bit marks a name that may be renamed; 0 marks a comment or docstring."""

    def __missing__(self, token: str) -> int:
        first = token[0]
        if first in "\n#":
            value = _NO_TOKEN
        elif token[-1] in "\"'" and len(token) > 1:
            value = _hash("'" + _QUOTES.sub("", token)) & ~1
        elif first.isdigit() or (first == "." and len(token) > 1):
            value = _hash(_number(token)) & ~1
        elif token.isidentifier():
            value = _hash(token) & ~1 | (token not in _NOT_RENAMED)
        else:
            value = _hash(token) & ~1
        self[token] = value
        return value


def _number(token: str) -> str:
    """Return the canonical spelling of a number: 0x10 and 16 are equal, 1. and 1.0 too; 1 and 1.0 are not."""
    with contextlib.suppress(ValueError):
        return repr(int(token, 0))
    with contextlib.suppress(ValueError):
        return repr(float(token))
    return token


_word_hashes, _code_hashes = _WordHashes(), _CodeHashes()


def word_tokens(text: str) -> Hashes:
    """Return the hashes of the words of a text, in order."""
    return _hashes(_WORD.findall(_ESCAPE.sub(" ", text.lower())), _word_hashes)


def code_tokens(text: str) -> Hashes:
    """Return the hashes of the code tokens of a text, in order."""
    tokens = _hashes(_TOKEN.findall("\n" + text), _code_hashes)
    kept: Hashes = tokens[tokens != _NO_TOKEN]
    return kept


def _hashes(tokens: list[str], memo: dict[str, int]) -> Hashes:
    if len(memo) > _MEMO_TOKENS:
        memo.clear()
    return np.fromiter(map(memo.__getitem__, tokens), np.uint64, len(tokens))


def ngrams(tokens: Hashes, n: int) -> Hashes:
    """Return the hashes of the n-grams of tokens, in order; an empty array for fewer than n tokens."""
    count = max(0, len(tokens) - n + 1)
    total = np.zeros(count, np.uint64)
    for j in range(n):
        total += tokens[j : j + count] * _FACTORS[j]
    return _mixed(total)


def renamed_ngrams(tokens: Hashes, n: int) -> Hashes:
    """Return the hashes of the n-grams of code tokens, invariant under consistent renaming."""
    count = max(0, len(tokens) - n + 1)
    total = np.zeros(count, np.uint64)
    if not count:
        return total
    tokens = tokens.copy()
    tokens[1:][tokens[:-1] == _DOT] &= ~_IS_NAME  # an attribute is not the name of the same spelling
    names = (tokens & _IS_NAME).astype(bool)
    back = _distances(tokens)
    for j in range(n):
        inside = np.where(back[j : j + count] <= j, back[j : j + count], 0).astype(np.uint64)
        token = np.where(names[j : j + count], inside * _NAME_STEP + _IS_NAME, tokens[j : j + count])
        total += _mixed(token) * _FACTORS[j]
    return _mixed(total)


def _distances(tokens: Hashes) -> npt.NDArray[np.int64]:
    """Return the distance of each token to its previous occurrence, 2**40 for a first occurrence."""
    order = np.argsort(tokens, kind="stable")
    again = np.flatnonzero(tokens[order[1:]] == tokens[order[:-1]])
    back = np.full(len(tokens), 2**40, np.int64)
    back[order[again + 1]] = order[again + 1] - order[again]
    return back


def _mixed(values: Hashes) -> Hashes:
    """Apply a bijection that spreads every bit (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_DOT = np.uint64(_code_hashes["."])
_NAME_STEP = np.uint64(2)
_FACTORS = np.array([_hash(f"place {j}") | 1 for j in range(64)], np.uint64)
