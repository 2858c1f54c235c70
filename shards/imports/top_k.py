"""Rows of top-k log-probabilities to rows of records: alignment with the tokens, checks, heads and tails.

Shapes: n tokens of a stored row, P lists of it, E entries in all of them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError
from shards.format.batch import Row
from shards.format.chunk import Bool, Int64, RowInfo
from shards.format.schema import HEAD_STEP, MAX_ENTRIES

Float64 = npt.NDArray[np.float64]

SMALLEST_HEAD = float(np.sin(HEAD_STEP / 2) ** 2)
"""Probability below which an entry joins the tail: its nearest code is zero, and the smallest code four times that."""
MASS_ERROR = 0.05
"""Most by which the mass of a position may exceed one: bfloat16 and fitted curves round log-probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRow:
    """A row as another tool stored it."""

    where: str
    """File and number of the row, for messages."""
    columns: dict[str, str]
    """Names of the columns `tokens`, `ids`, `logprobs`, `tail` and `mask` in the file, for messages."""
    tokens: Int64
    """[n] ids of the tokens."""
    counts: Int64
    """[P] entries of each list. List j predicts token j + 1, or token j if there are n and the first is empty."""
    ids: Int64
    """[E] ids of the entries."""
    logprobs: Float64
    """[E] natural logs of their probabilities; -inf for padding."""
    tail: Float64 | None = None
    """[P] mass of all other ids, where it is stored."""
    mask: Int64 | None = None
    """[n] 0 for padding, else the number of the text that the token is part of, where several were packed."""

    @property
    def first_list(self) -> int:
        """Number of the list that predicts token 1: 1 if there is an empty one for token 0, else 0."""
        return int(len(self.counts) == len(self.tokens) > 0 and not self.counts[0])


@dataclass(slots=True)
class RowMaker:
    """Turns stored rows into records, and counts what is left out."""

    vocab_size: int
    """Ids must be below this."""
    token_bytes: dict[int, bytes]
    """Bytes of each token; empty for special ones."""
    pad_token: int | None
    """Id of tokens at the end of a row that are padding and not text; None if there is none."""
    is_renormalised: bool
    """Whether the stored probabilities are those among the entries, so that the mass of other ids is not known."""
    source: str
    """Source of the rows, for their origin."""
    counts: Counter[str] = field(default_factory=Counter)
    """Numbers of what was left out, by name."""
    _windows: Counter[bytes] = field(default_factory=Counter)
    """Number of rows with each text."""

    def rows(self, stored: StoredRow) -> Iterator[Row]:
        """Yield the rows of records of a stored row: one for each text in it.

        Raises:
            ShardError: If the stored row contradicts itself or is none of a teacher.
        """
        entries = _checked(stored, self.vocab_size)
        for number, (start, stop) in enumerate(self._texts(stored)):
            if stop - start < 2:
                self.counts["texts of one token"] += 1
                continue
            # The list that predicts token t is at t - 1: lists are aligned to the tokens before them.
            part = entries.positions(start, stop - 1)
            if (empty := np.flatnonzero(part.counts == 0)).size:
                raise ShardError(
                    f"{stored.where}, column {stored.columns['ids']}, position "
                    f"{int(empty[0]) + start + stored.first_list}: found no entries, expected at least one"
                )
            yield self._row(stored, part, stored.tokens[start:stop], number)

    def _texts(self, stored: StoredRow) -> Iterator[tuple[int, int]]:
        """Yield first token and end of each text of a row, without padding."""
        length = len(stored.tokens)
        mask = np.ones(length, np.int64) if stored.mask is None else stored.mask
        cuts = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), length]
        for start, stop in itertools.pairwise(cuts):
            if start == stop or mask[start] == 0:
                continue
            end = stop
            while end > start and stored.tokens[end - 1] == self.pad_token:
                end -= 1
            self.counts["padding tokens"] += stop - end
            yield start, end

    def _row(self, stored: StoredRow, entries: _ListEntries, tokens: Int64, number: int) -> Row:
        head = entries.head(is_renormalised=self.is_renormalised)
        self.counts["entries that joined the tail"] += len(entries.ids) - len(head.ids)
        self.counts["entries"] += len(entries.ids)
        text = b"".join(self.token_bytes.get(token, b"") for token in tokens.tolist())
        digest = hashlib.sha256(text)
        window = self._windows[digest.digest()]
        self._windows[digest.digest()] += 1
        positions = len(tokens) - 1
        unknown = np.full(positions, np.nan, np.float32)
        file, _, row = stored.where.partition(" row ")
        return Row(
            info=RowInfo(
                document=digest.hexdigest(),
                window=window,
                byte_start=0,
                byte_end=len(text),
                source=self.source,
                path=f"{file}#{row}.{number}",
                licence="",
            ),
            tokens=tokens.astype(np.int32),
            head_count=head.counts,
            head_ids=head.ids.astype(np.int32),
            head_probs=head.probs.astype(np.float32),
            draw_count=np.zeros(positions, np.int64),
            draw_ids=np.zeros(0, np.int32),
            label_logp=unknown,
            whitespace_logp=unknown,
            entropy=unknown,
            log_z=np.zeros((positions, 0), np.float32),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _ListEntries:
    """Entries of some positions, those of a position by falling probability."""

    counts: Int64
    """[P] entries of each position."""
    ids: Int64
    probs: Float64

    @property
    def owner(self) -> Int64:
        """[E] position of each entry."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def positions(self, start: int, stop: int) -> _ListEntries:
        """Return the entries of the positions start:stop."""
        ends = np.concatenate(([0], np.cumsum(self.counts)))
        part = slice(int(ends[start]), int(ends[stop]))
        return _ListEntries(counts=self.counts[start:stop], ids=self.ids[part], probs=self.probs[part])

    def keep(self, mask: Bool) -> _ListEntries:
        """Return the marked entries."""
        counts = np.bincount(self.owner[mask], minlength=len(self.counts)).astype(np.int64)
        return _ListEntries(counts=counts, ids=self.ids[mask], probs=self.probs[mask])

    def mass(self) -> Float64:
        """Return float64 [P]: the sum of the probabilities of each position."""
        return np.bincount(self.owner, self.probs, len(self.counts)).astype(np.float64)

    def scaled(self, mass: Float64) -> _ListEntries:
        """Return the entries with probabilities that sum to `mass` [P] at each position."""
        factor = mass / np.maximum(self.mass(), 1e-300)
        return _ListEntries(counts=self.counts, ids=self.ids, probs=self.probs * factor[self.owner])

    def head(self, *, is_renormalised: bool) -> _ListEntries:
        """Return the entries that codes can represent, at least one for each position that has some."""
        starts = np.cumsum(self.counts) - self.counts
        rank = np.arange(len(self.ids)) - starts[self.owner]
        head = self.keep((rank == 0) | ((rank < MAX_ENTRIES) & (self.probs >= SMALLEST_HEAD)))
        return head.scaled(np.ones(len(head.counts))) if is_renormalised else head


def _checked(stored: StoredRow, vocab_size: int) -> _ListEntries:
    """Return the entries of a row, aligned so that position j predicts token j + 1, by falling probability."""
    where, names = stored.where, stored.columns
    _check_ids(stored.tokens, vocab_size, f"{where}, column {names['tokens']}", None)
    owner = np.repeat(np.arange(len(stored.counts)), stored.counts)
    if (is_bad := np.isnan(stored.logprobs) | (stored.logprobs > np.log1p(MASS_ERROR))).any():
        e = int(np.argmax(is_bad))
        raise ShardError(
            f"{where}, column {names['logprobs']}, position {owner[e]}: found {stored.logprobs[e]:g}, expected natural "
            "logs of probabilities, at most 0; if these are logits or probabilities, store their log-softmax or log"
        )
    is_entry = np.isfinite(stored.logprobs)
    entries = _ListEntries(counts=stored.counts, ids=stored.ids, probs=np.exp(stored.logprobs)).keep(is_entry)
    _check_ids(entries.ids, vocab_size, f"{where}, column {names['ids']}", entries.owner)
    entries = _sorted(entries, f"{where}, column {names['ids']}")
    entries = entries.scaled(_head_mass(stored, entries.mass()))
    return _aligned(stored, entries)


def _check_ids(ids: Int64, vocab_size: int, where: str, owner: Int64 | None) -> None:
    if (is_bad := (ids < 0) | (ids >= vocab_size)).any():
        e = int(np.argmax(is_bad))
        position = f", position {e if owner is None else owner[e]}"
        raise ShardError(f"{where}{position}: found the id {ids[e]}, expected 0 to {vocab_size - 1}")


def _sorted(entries: _ListEntries, where: str) -> _ListEntries:
    owner = entries.owner
    key = owner * 2**32 + entries.ids
    unique, first = np.unique(key, return_index=True)
    if len(unique) != len(key):
        e = int(np.setdiff1d(np.arange(len(key)), first)[0])
        raise ShardError(f"{where}, position {owner[e]}: found the id {entries.ids[e]} twice, expected each id once")
    order = np.lexsort((-entries.probs, owner))
    return _ListEntries(counts=entries.counts, ids=entries.ids[order], probs=entries.probs[order])


def _head_mass(stored: StoredRow, mass: Float64) -> Float64:
    """Return float64 [P]: the mass that the entries of each position get, at most one."""
    column, expected = stored.columns["logprobs"], np.minimum(mass, 1.0)
    if stored.tail is not None:
        column, tail = stored.columns["tail"], stored.tail
        if (is_bad := ~((tail >= 0) & (tail <= 1))).any():
            p = int(np.argmax(is_bad))
            raise ShardError(
                f"{stored.where}, column {column}, position {p}: found the probability {tail[p]:g}, expected 0 to 1"
            )
        expected = 1.0 - tail
        is_share = np.abs(mass - 1.0) <= MASS_ERROR  # the entries were renormalised, and the tail is stored beside them
        mass = np.where(is_share | (stored.counts == 0), 1.0, mass + tail)
        is_bad = np.abs(mass - 1.0) > MASS_ERROR
    else:
        is_bad = mass > 1.0 + MASS_ERROR
    if is_bad.any():
        p = int(np.argmax(is_bad))
        raise ShardError(
            f"{stored.where}, column {column}, position {p}: found probabilities that sum to {mass[p]:.4g}, expected "
            "at most 1 for the entries, and 1 with the mass of the tail where that is stored"
        )
    return expected


def _aligned(stored: StoredRow, entries: _ListEntries) -> _ListEntries:
    where, names, length = stored.where, stored.columns, len(stored.tokens)
    num_lists = len(stored.counts)
    if num_lists not in (length - 1, length) or not length:
        raise ShardError(
            f"{where}, column {names['ids']}: found {num_lists} lists for {length} tokens in column "
            f"{names['tokens']}, expected {max(0, length - 1)} (one for each token but the first) or {length}"
        )
    return entries.positions(stored.first_list, stored.first_list + length - 1)
