"""Compare the tokenizers of student and shards: pieces, ids and merges that both have.

Where they match, the student learns token by token; where they differ, across tokenizers (`cross_tokenizer/`).

A student may have fewer or more ids than the teacher: TinyLlama has 32,000 of Code Llama's 32,016. The mass of ids that
it lacks joins the tail. Templates and special roles are not compared; they change no id of a text.
"""

from __future__ import annotations

from collections.abc import Iterable

from shards.errors import ShardError
from shards.model_files.tokenizer import TokenizerRules
from student_train.errors import StudentError

_SMALLEST_SHARE = 0.99
"""Share of the teacher's ids that the student must have: it may lack infill tokens, but no words."""


def tokenizer_difference(name: str, student: TokenizerRules, shards: TokenizerRules) -> str | None:
    """Return how a student's tokenizer differs from that of the shards; None where they match.

    Args:
        name: Name of the student, for messages.
        student: Rules of the student's tokenizer.
        shards: Rules of the shards' tokenizer.

    Raises:
        StudentError: A tokenizer samples, so that it is not a function of the text.
    """
    try:
        if student.fingerprint() == shards.fingerprint():
            return None
    except ShardError as error:
        raise StudentError(f"student {name}: {error}") from None
    student_pieces, shards_pieces = student.pieces, shards.pieces
    piece_of = {i: piece for piece, i in student_pieces.items()}
    shared = {piece: i for piece, i in shards_pieces.items() if i in piece_of}
    for piece, i in sorted(shared.items(), key=lambda item: item[1]):
        if piece_of[i] != piece:
            return (
                f"of its {len(student_pieces)} pieces id {i} is {piece_of[i]!r}, of the shards' {len(shards_pieces)} "
                f"it is {piece!r}"
            )
    if len(shared) < _SMALLEST_SHARE * len(shards_pieces):
        return f"of its {len(student_pieces)} pieces {len(shared)} are among the shards' {len(shards_pieces)}"
    if _merges(student, shared) != _merges(shards, shared):
        return "it has the shards' pieces but other merges, so it cuts text otherwise"
    return None


def _merges(rules: TokenizerRules, shared: Iterable[str]) -> list[tuple[str, str]]:
    """Return the merges among shared pieces, in order."""
    known = frozenset(shared)
    merges = ((pair[0], pair[1]) for pair in rules.merges)
    return [(a, b) for a, b in merges if a in known and b in known and a + b in known]
