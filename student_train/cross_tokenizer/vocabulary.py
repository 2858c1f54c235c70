"""Which byte strings can a student say? The ids of a tokenizer as bytes, in order, and text as ids.

Byte offsets, never characters: a token may hold a part of a character (byte fallback, split BPE). Ids without bytes
(special tokens, padding of the projection) stand for nothing in a text; ids with equal bytes are neighbours in `order`.

Shapes: V ids of the student's projection.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass
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
_ENDS = ("</s>", "<|endoftext|>")
_PROBE = (
    "def f(x):\n    if x:\n        return [1, 23, 456]\n\n\nclass A:\r\n\t\t'''caf\u00e9 \u4e2d\u6587 \U0001f600'''\n"
    "                 x = '\u0301\x00\x7f'  # \t  \n"
)


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """A tokenizer and the bytes of its ids. Its arrays must not be written to."""

    folder: Path
    """Where its tokenizer.json lies."""
    strings: list[bytes]
    """[V] bytes by id, b"" for ids that stand for no text."""
    prefix: tuple[int, ...]
    """Ids that the tokenizer puts before a text; () where it has no such token (Phi-2)."""
    ends: tuple[int, ...]
    """Ids that end a text."""
    _fast: Any

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text, without prefix. Text that looks like a special token is text."""
        return [found.ids for found in self._fast.encode_batch_fast(texts, add_special_tokens=False)]

    def join(self, ids: list[int]) -> bytes:
        """Return the bytes that ids stand for together, with the dummy space that SentencePiece may put first."""
        return b"".join(map(self.strings.__getitem__, ids))

    @cached_property
    def has_dummy(self) -> bool:
        """Whether a text's tokens begin with a space that is not in the text."""
        return self.join(self.encode(["x"])[0]) == b" x"

    @cached_property
    def lengths(self) -> Int64:
        """[V] number of bytes."""
        return np.array([len(raw) for raw in self.strings], dtype=np.int64)

    @cached_property
    def order(self) -> Int64:
        """[V] ids by their bytes; those without bytes come first. What begins with a string is one range of it."""
        return np.array(sorted(range(len(self.strings)), key=self.strings.__getitem__), dtype=np.int64)

    @cached_property
    def white(self) -> npt.NDArray[np.bool_]:
        """[V] True for ids that begin with a whitespace byte or end a text."""
        found = np.array([raw[:1] in _WHITE_BYTES for raw in self.strings])
        found[list(self.ends)] = True
        return found

    @cached_property
    def _sorted(self) -> list[bytes]:
        return [self.strings[i] for i in self.order]

    def range_of(self, start: bytes) -> tuple[int, int]:
        """Return [lo, hi) of `order`: the ids whose bytes begin with `start`, which is not empty."""
        above = start.rstrip(b"\xff")
        high = above[:-1] + bytes([above[-1] + 1]) if above else None
        return bisect_left(self._sorted, start), len(self._sorted) if high is None else bisect_left(self._sorted, high)

    def equal_to(self, raw: bytes) -> tuple[int, int]:
        """Return [lo, hi) of `order`: the ids whose bytes are `raw`; empty where there is none."""
        return bisect_left(self._sorted, raw), bisect_left(self._sorted, raw + b"\x00")


_WHITE_BYTES = frozenset(WHITESPACE[i : i + 1] for i in range(len(WHITESPACE)))


def load_vocabulary(folder: str | os.PathLike[str], *, vocab_size: int = 0) -> Vocabulary:
    """Return the vocabulary of the tokenizer in `folder`, over `vocab_size` ids (0: as many as the tokenizer has).

    Raises: StudentError, naming the token, where the tokenizer is of no known family, has no token for a character of
    ASCII, or does not give back the bytes of a text.
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
    ends = {t["id"] for t in rules.added_tokens if t["special"] and t["content"] in (*_ENDS, "<eos>")}
    vocabulary = Vocabulary(
        folder=folder,
        strings=[table.get(i, b"") for i in range(vocab_size or max(table) + 1)],
        prefix=tuple(fast.encode("").ids)[:1],
        ends=tuple(sorted(ends)),
        _fast=fast,
    )
    _require_bytes(vocabulary)
    require_round_trip(vocabulary, _PROBE)
    return vocabulary


def require_round_trip(vocabulary: Vocabulary, text: str) -> None:
    """Raise StudentError, naming the first token that departs, unless the tokens of `text` give its bytes back."""
    raw, ids = text.encode(), vocabulary.encode([text])[0]
    joined = vocabulary.join(ids)
    if joined in (raw, b" " + raw):
        return
    at = -1 if joined[:1] == b" " != raw[:1] else 0
    for token in ids:
        found = vocabulary.strings[token]
        expected = (b" " + raw)[at + 1 : at + 1 + len(found)]
        if found != expected or not found:
            piece = vocabulary._fast.id_to_token(token)
            raise StudentError(
                f"{vocabulary.folder}: token {token} {piece!r} stands for {found!r} where the text has "
                f"{raw[max(at, 0) : max(at, 0) + 12]!r}; expected a tokenizer whose tokens give the text back"
            )
        at += len(found)
    raise StudentError(
        f"{vocabulary.folder}: the tokens of a text end {len(raw) - at} bytes before it; expected all of its bytes"
    )


def _require_bytes(vocabulary: Vocabulary) -> None:
    known = {raw for raw in vocabulary.strings if len(raw) == 1}
    # Of the others some tokenizers lack a few (SmolLM2's: six control characters, F1, F2): they leave out such rows.
    missing = [b for b in (*b"\t\n\r", *range(0x20, 0x7F)) if bytes([b]) not in known]
    if missing:
        raise StudentError(
            f"{vocabulary.folder}: found no token for the byte <0x{missing[0]:02X}>, expected one for each character "
            "of ASCII; without it few programs can be told from their tokens"
        )
