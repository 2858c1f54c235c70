"""The text of a row in bytes, and where the teacher's tokens end in it.

The text of a document is what the tokens after the prefix spell. The text of a response is what those after its
context spell, between two bytes of its own: `BEGIN` stands for the context, and `END` for the token that ends the turn,
where there is one. So both models have a shared boundary before the first byte of a response and one after its last.
`END` is a whitespace byte, as the end of a turn ends a word.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk, RowInfo
from student_train.data.own_template import has_conversation

Int64 = npt.NDArray[np.int64]

BEGIN = b"\n"
END = b"\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowText:
    """The text of a teacher's row."""

    info: RowInfo
    """The origin of the row."""
    raw: bytes
    """UTF-8, without the dummy space; of a response between `BEGIN` and `END`."""
    low: int
    """Start of the whole characters: a window of a document may begin inside a character."""
    high: int
    """End of the whole characters."""
    ends: Int64
    """Byte at which each text token ends; of a response also `BEGIN` and the end-of-turn token."""
    num_prefix: int
    """Positions before the one that predicts the second of `ends`, minus one: the prefix tokens of a document."""
    is_response: bool
    """Whether the row is a response to messages."""
    is_ended: bool
    """Whether its last token ends the turn."""
    has_dummy: bool
    """Whether the teacher's tokens begin with a space that is not in the text."""
    has_special: bool
    """Whether special tokens stand in the text."""

    @property
    def num_positions(self) -> int:
        """Number of positions of the row."""
        return self.num_prefix + len(self.ends) - 1

    @property
    def text(self) -> bytes:
        """The whole characters."""
        return self.raw[self.low : self.high]


def row_text(row: Chunk, strings: list[bytes], *, ends: Set[int] = frozenset()) -> RowText:
    """Return the text of a row.

    Args:
        row: A chunk of one row.
        strings: Bytes of each teacher id; b"" for ids that are no text.
        ends: The teacher's ids that end a turn.

    Raises:
        TrainError: The row has a context without messages.
    """
    if has_conversation(row.rows[0]):
        return _response_text(row, strings, ends)
    info, tokens = row.rows[0], row.tokens.tolist()
    num_prefix = 0
    while num_prefix < len(tokens) and not strings[tokens[num_prefix]]:
        num_prefix += 1
    parts = [strings[token] for token in tokens[num_prefix:]]
    raw, dummy = _without_dummy(b"".join(parts), info)
    low = next((i for i, byte in enumerate(raw[:3]) if byte & 0xC0 != 0x80), len(raw[:3]))
    return RowText(
        info=info,
        raw=raw,
        low=low,
        high=max(low, _last_whole(raw)),
        ends=_ends(parts) - dummy,
        num_prefix=num_prefix,
        is_response=False,
        is_ended=False,
        has_dummy=bool(dummy),
        has_special=False,
    )


def _response_text(row: Chunk, strings: list[bytes], ends: Set[int]) -> RowText:
    info = row.rows[0]
    tokens = row.tokens[info.context :].tolist()
    is_ended = bool(tokens) and tokens[-1] in ends
    parts = [strings[token] for token in (tokens[:-1] if is_ended else tokens)]
    text, dummy = _without_dummy(b"".join(parts), info)
    low = len(BEGIN)
    return RowText(
        info=info,
        raw=BEGIN + text + END * is_ended,
        low=low,
        high=low + _last_whole(text),
        ends=np.concatenate(
            ([low], low + _ends(parts) - dummy, [low + len(text) + len(END)] if is_ended else [])
        ).astype(np.int64),
        num_prefix=0,
        is_response=True,
        is_ended=is_ended,
        has_dummy=bool(dummy),
        has_special=not all(parts),
    )


def _without_dummy(raw: bytes, info: RowInfo) -> tuple[bytes, int]:
    """Return a text without the dummy space, and the number of bytes removed."""
    dummy = int(info.byte_start == 0 and len(raw) == info.byte_end + 1 and raw[:1] == b" ")
    return raw[dummy:], dummy


def _ends(parts: list[bytes]) -> Int64:
    return np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)))


def _last_whole(raw: bytes) -> int:
    """Return where the last whole character of `raw` ends."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(raw) if length <= back else len(raw) - back
    return len(raw)
