"""Kinds of tokens of Python source, by the text of each token alone.

A token may be part of a name or of a number: " re" of " return" counts as a name.
"""

from __future__ import annotations

import keyword
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

KINDS = ("name", "keyword", "number", "punctuation", "space", "line break", "other text", "special")
"""Kinds, in the order of tables. `special` tokens have no text; `other text` is not ASCII."""


def kind_of(text: bytes) -> str:
    """Return the kind of a token.

    Args:
        text: UTF-8 bytes of the token, which may be a part of a character; empty for a special token.
    """
    if not text:
        return "special"
    word = text.strip()
    if not word:
        return "line break" if b"\n" in text or b"\r" in text else "space"
    if not word.isascii():
        return "other text"
    plain = word.decode("ascii")
    if keyword.iskeyword(plain):
        return "keyword"
    if any(char.isalpha() or char == "_" for char in plain):
        return "name"
    return "number" if any(char.isdigit() for char in plain) else "punctuation"


def kinds_of_ids(table: dict[int, bytes], vocab_size: int) -> npt.NDArray[np.int8]:
    """Return the index in `KINDS` of each id; ids without a piece are special.

    Args:
        table: Bytes of each id, as `TokenizerRules.token_bytes` returns them.
        vocab_size: Number of ids.
    """
    indices = {kind: i for i, kind in enumerate(KINDS)}
    kinds: Sequence[int] = [indices[kind_of(table.get(i, b""))] for i in range(vocab_size)]
    return np.array(kinds, np.int8)
