"""Is a student's tokenizer the shards' own? Same pieces under the same ids, and the same merges, on what both know.

Where it is, the student learns token by token; where it is not, across tokenizers (`cross.py`).

A student may know fewer or more ids than the teacher (TinyLlama has 32,000 of Code Llama's 32,016): ids that it lacks
are counted in the tail. NOT compared: templates and special roles, which change no id of a text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shards.errors import ShardError
from shards.model_files.tokenizer import TokenizerRules
from student_train.errors import StudentError

_SHARED_AT_LEAST = 0.99
"""Share of the teacher's ids that the student must have: infill tokens may lack, words may not."""


def tokenizer_difference(student: str, student_dir: Path, shards_dir: Path) -> str | None:
    """Return how the tokenizer in `student_dir` differs from that of the shards, None where it fits.

    Raises: StudentError where there is no tokenizer to compare.
    """
    try:
        student_rules, teacher_rules = TokenizerRules.load(student_dir), TokenizerRules.load(shards_dir)
        if student_rules.fingerprint() == teacher_rules.fingerprint():
            return None
    except ShardError as error:
        raise StudentError(f"student {student}: {error}") from None
    theirs, ours = student_rules.pieces, teacher_rules.pieces
    by_id = {i: piece for piece, i in theirs.items()}
    shared = {piece: i for piece, i in ours.items() if i in by_id}
    for piece, i in sorted(shared.items(), key=lambda item: item[1]):
        if by_id[i] != piece:
            return f"of its {len(theirs)} pieces id {i} is {by_id[i]!r}, of the shards' {len(ours)} it is {piece!r}"
    if len(shared) < _SHARED_AT_LEAST * len(ours):
        return f"of its {len(theirs)} pieces {len(shared)} are among the shards' {len(ours)}"
    if _merges(student_rules, shared) != _merges(teacher_rules, shared):
        return "it has the shards' pieces but other merges, so it cuts text otherwise"
    return None


def _merges(rules: TokenizerRules, shared: Iterable[str]) -> list[tuple[str, str]]:
    """Return the merges among shared pieces, in order."""
    known = frozenset(shared)
    merges = ((pair[0], pair[1]) for pair in rules.merges)
    return [(a, b) for a, b in merges if a in known and b in known and a + b in known]
