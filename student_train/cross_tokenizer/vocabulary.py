"""A student's vocabulary as byte strings: ids as bytes, ids in byte order, and text as ids.

Offsets are bytes, not characters, because a token may be a part of a character (byte fallback, split BPE). Ids without
bytes (special tokens, padding of the projection) are no text. Ids with equal bytes are neighbours in `order`.

CONTRIBUTING.md has the steps that add a tokenizer family.

Shapes: V ids of the student's projection.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError
from shards.model_files.tokenizer import TokenizerRules
from student_train.errors import StudentError

Int64 = npt.NDArray[np.int64]

WHITESPACE = b"\t\n\r "
"""Bytes that count as whitespace."""
_WHITE_BYTES = frozenset(WHITESPACE[i : i + 1] for i in range(len(WHITESPACE)))
END_PIECES = ("</s>", "<|endoftext|>", "<eos>")
"""Special tokens that end a text."""
_PROBE = (
    "def f(x):\n    if x:\n        return [1, 23, 456]\n\n\nclass A:\r\n\t\t'''caf\u00e9 \u4e2d\u6587 \U0001f600'''\n"
    "                 x = '\u0301\x00\x7f'  # \t  \n"
)
"""Text that a tokenizer must reproduce to the byte."""


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """A tokenizer and the bytes of its ids. Its arrays must not be changed."""

    folder: Path
    """Folder of its tokenizer.json."""
    strings: list[bytes]
    """Bytes of each id [V]; b"" for ids that are no text."""
    prefix: tuple[int, ...]
    """Ids that the tokenizer puts before a text; () where it has no such token (Phi-2)."""
    ends: tuple[int, ...]
    """Ids that end a text."""
    _fast: Any

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text, without prefix. Special tokens in a text are encoded as plain text."""
        return [encoding.ids for encoding in self._fast.encode_batch_fast(texts, add_special_tokens=False)]

    def join(self, ids: list[int]) -> bytes:
        """Return the bytes of ids together, with the dummy space that SentencePiece may put first."""
        return b"".join(map(self.strings.__getitem__, ids))

    def with_end(self, end: int) -> Vocabulary:
        """Return the vocabulary in which the id `end` is no text and ends one."""
        strings = [b"" if i == end else raw for i, raw in enumerate(self.strings)]
        return replace(self, strings=strings, ends=tuple(sorted({*self.ends, end})))

    @cached_property
    def has_dummy(self) -> bool:
        """Whether the tokens of a text begin with a space that is not in the text."""
        return self.join(self.encode(["x"])[0]) == b" x"

    @cached_property
    def lengths(self) -> Int64:
        """Number of bytes of each id [V]."""
        return np.array([len(raw) for raw in self.strings], dtype=np.int64)

    @cached_property
    def order(self) -> Int64:
        """Ids sorted by their bytes [V], those without bytes first; ids with a common beginning are one range."""
        return np.array(sorted(range(len(self.strings)), key=self.strings.__getitem__), dtype=np.int64)

    @cached_property
    def white(self) -> npt.NDArray[np.bool_]:
        """Whether each id begins with a whitespace byte or ends a text [V]."""
        white_V = np.array([raw[:1] in _WHITE_BYTES for raw in self.strings])
        white_V[list(self.ends)] = True
        return white_V

    @cached_property
    def _sorted(self) -> list[bytes]:
        return [self.strings[i] for i in self.order]

    def range_of(self, start: bytes) -> tuple[int, int]:
        """Return [low, high) of `order`: the ids with bytes that begin with `start`, which is not empty."""
        above = start.rstrip(b"\xff")
        high = above[:-1] + bytes([above[-1] + 1]) if above else None
        return bisect_left(self._sorted, start), len(self._sorted) if high is None else bisect_left(self._sorted, high)

    def equal_to(self, raw: bytes) -> tuple[int, int]:
        """Return [low, high) of `order`: the ids with the bytes `raw`; empty without any."""
        return bisect_left(self._sorted, raw), bisect_left(self._sorted, raw + b"\x00")


def load_vocabulary(folder: str | os.PathLike[str], *, vocab_size: int = 0) -> Vocabulary:
    """Return the vocabulary of a tokenizer.

    Args:
        folder: Folder of a tokenizer.json.
        vocab_size: V; 0 for as many ids as the tokenizer has.

    Raises:
        StudentError: The tokenizer is of no known family, has no token for an ASCII character, or does not reproduce
            the bytes of a text. The message names the token.
    """
    from tokenizers import Tokenizer

    folder = Path(folder)
    try:
        rules = TokenizerRules.load(folder)
        table = rules.token_bytes()
    except ShardError as error:
        raise StudentError(str(error)) from None
    if vocab_size and max(table) >= vocab_size:
        raise StudentError(
            f"{folder}: found token {max(table)} in the tokenizer, the model has {vocab_size} ids; expected a "
            "tokenizer that belongs to the model"
        )
    fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = True
    ends = {token["id"] for token in rules.added_tokens if token["special"] and token["content"] in END_PIECES}
    vocabulary = Vocabulary(
        folder=folder,
        strings=[table.get(i, b"") for i in range(vocab_size or max(table) + 1)],
        prefix=tuple(fast.encode("").ids)[:1],
        ends=tuple(sorted(ends)),
        _fast=fast,
    )
    _require_ascii(vocabulary)
    require_round_trip(vocabulary, _PROBE)
    return vocabulary


def require_round_trip(vocabulary: Vocabulary, text: str) -> None:
    """Raise StudentError, naming the first token that differs, unless the tokens of a text give its bytes back."""
    raw, ids = text.encode(), vocabulary.encode([text])[0]
    joined = vocabulary.join(ids)
    if joined in (raw, b" " + raw):
        return
    at = -1 if joined[:1] == b" " != raw[:1] else 0
    for token in ids:
        token_bytes = vocabulary.strings[token]
        expected = (b" " + raw)[at + 1 : at + 1 + len(token_bytes)]
        if token_bytes != expected or not token_bytes:
            piece = vocabulary._fast.id_to_token(token)
            raise StudentError(
                f"{vocabulary.folder}: token {token} {piece!r} stands for {token_bytes!r} where the text has "
                f"{raw[max(at, 0) : max(at, 0) + 12]!r}; expected a tokenizer whose tokens give the text back"
            )
        at += len(token_bytes)
    raise StudentError(
        f"{vocabulary.folder}: the tokens of a text end {len(raw) - at} bytes before it; expected all of its bytes"
    )


def _require_ascii(vocabulary: Vocabulary) -> None:
    known = {raw for raw in vocabulary.strings if len(raw) == 1}
    # Some tokenizers lack a few other bytes (SmolLM2's: six control characters, F1, F2); rows with these are left out.
    missing = [b for b in (*b"\t\n\r", *range(0x20, 0x7F)) if bytes([b]) not in known]
    if missing:
        raise StudentError(
            f"{vocabulary.folder}: found no token for the byte <0x{missing[0]:02X}>, expected one for each character "
            "of ASCII; without it few programs can be told from their tokens"
        )
