"""What does a text say, apart from how it is laid out? Streams of token hashes, and the n-grams of a stream.

Three views, each deaf to other changes:

- `words`: letters and digits of the whole text, lower case. Deaf to wrapping, punctuation, and to being moved into a
  comment or a string.
- `code`: tokens of Python source without comments, docstrings, white space, and the punctuation that formatters add
  and remove. Deaf to layout and comments. It is a regular expression, not a parser: any text has tokens.
- `renamed` n-grams of `code`: inside each n-gram a name that is neither keyword, builtin nor attribute is replaced by
  the distance to its previous occurrence in the n-gram (Baker, "A theory of parameterized pattern matching", STOC
  1993). Deaf to consistent renaming as well.

Hashes are of the content alone (blake2b), so they are the same in every process and on every machine.
"""

from __future__ import annotations

import builtins
import hashlib
import keyword
import re

import numpy as np
import numpy.typing as npt

VERSION = 1
"""Of the rules below: a change of the rules is a change of what a filter keeps."""

Hashes = npt.NDArray[np.uint64]

_MEMO = 200_000
"""Distinct tokens whose hashes are kept at a time (about 30 MB)."""

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
_NOTHING = 0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class _Words(dict[str, int]):
    def __missing__(self, token: str) -> int:
        value = self[token] = _hash(token)
        return value


class _Code(dict[str, int]):
    """Token to hash; the lowest bit says whether it is a name that may be renamed, 0 stands for no token."""

    def __missing__(self, token: str) -> int:
        first = token[0]
        if first in "\n#":
            value = _NOTHING
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
    """Return one spelling of a number: 0x10 and 16, 1. and 1.0 are the same; 1 and 1.0 are not."""
    for kind in (lambda t: repr(int(t, 0)), lambda t: repr(float(t))):
        try:
            return kind(token)
        except ValueError:
            pass
    return token


_words, _code = _Words(), _Code()


def words(text: str) -> Hashes:
    """Return the hashes of the words of a text, in order."""
    return _hashes(_WORD.findall(_ESCAPE.sub(" ", text.lower())), _words)


def code(text: str) -> Hashes:
    """Return the hashes of the tokens of source, in order."""
    found = _hashes(_TOKEN.findall("\n" + text), _code)
    return found[found != _NOTHING]


def _hashes(tokens: list[str], memo: dict[str, int]) -> Hashes:
    if len(memo) > _MEMO:
        memo.clear()
    return np.fromiter(map(memo.__getitem__, tokens), np.uint64, len(tokens))


def ngrams(tokens: Hashes, n: int) -> Hashes:
    """Return the hashes of the runs of n tokens, in order; none where there are fewer tokens."""
    count = max(0, len(tokens) - n + 1)
    total = np.zeros(count, np.uint64)
    for j in range(n):
        total += tokens[j : j + count] * _FACTORS[j]
    return _mixed(total)


def renamed_ngrams(tokens: Hashes, n: int) -> Hashes:
    """Return the hashes of the runs of n tokens of `code`, the same for any consistent choice of names."""
    count = max(0, len(tokens) - n + 1)
    total = np.zeros(count, np.uint64)
    if not count:
        return total
    tokens = tokens.copy()
    tokens[1:][tokens[:-1] == _DOT] &= ~_IS_NAME  # an attribute: another token than the name spelled the same
    names = (tokens & _IS_NAME).astype(bool)
    back = _distances(tokens)
    for j in range(n):
        inside = np.where(back[j : j + count] <= j, back[j : j + count], 0).astype(np.uint64)
        token = np.where(names[j : j + count], inside * _NAME_STEP + _IS_NAME, tokens[j : j + count])
        total += _mixed(token) * _FACTORS[j]
    return _mixed(total)


def _distances(tokens: Hashes) -> npt.NDArray[np.int64]:
    """Return for each token how many tokens back its previous occurrence is; a large number for none."""
    order = np.argsort(tokens, kind="stable")
    again = np.flatnonzero(tokens[order[1:]] == tokens[order[:-1]])
    back = np.full(len(tokens), 2**40, np.int64)
    back[order[again + 1]] = order[again + 1] - order[again]
    return back


def _mixed(values: Hashes) -> Hashes:
    """Return a bijection of the values that spreads every bit (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_DOT = np.uint64(_code["."])
_NAME_STEP = np.uint64(2)
_FACTORS = np.array([_hash(f"place {j}") | 1 for j in range(64)], np.uint64)
