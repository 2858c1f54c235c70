"""Give stored rows the context that the student's own chat template makes of their messages.

The response keeps its ids and its records. Where the student ends a turn with another token than the teacher, the two
tokens change places among the labels and in the records, so that the student learns to stop with its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import shards
from shards.format.chunk import Chunk, Int32, RowInfo
from student_train.data.chat_template import StudentTemplate
from student_train.errors import TrainError


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnTemplate:
    """The chat template of a student that has the shards' tokenizer."""

    template: StudentTemplate
    """The student's template."""
    teacher_end: int
    """Token that ends a turn in the shards."""

    @classmethod
    def of(cls, name: str, tokenizer_dir: Path, cache: shards.Cache) -> OwnTemplate:
        """Return the template of a student.

        Args:
            name: Name of the student, for messages.
            tokenizer_dir: Folder of its tokenizer.
            cache: The shards.

        Raises:
            TrainError: The rows are no conversations, or the student's template cannot render the first of them.
        """
        if not cache.manifest.layout.has_responses:
            raise TrainError(
                f"template is own; found plain documents in {cache.store.root}, expected conversations, which a "
                "template can render; leave the option out"
            )
        teacher = StudentTemplate.load("the shards' teacher", cache.tokenizer_dir)
        own = cls(template=StudentTemplate.load(f"student {name}", tokenizer_dir), teacher_end=teacher.end_of_turn)
        if len(cache):
            own.rendered(cache[0].row(0))
        return own

    def rendered(self, row: Chunk) -> Chunk:
        """Return a row with the context in the student's template.

        Args:
            row: A chunk of one row.

        Raises:
            TrainError: The row has a context without messages, or the template cannot render them.
        """
        info = row.rows[0]
        if not has_conversation(info):
            return row
        context = self.template.context_ids(info.messages).astype(np.int32)
        end = self.template.end_of_turn
        tokens = np.concatenate((context, _exchanged(row.tokens[info.context :], self.teacher_end, end)))
        return replace(
            row,
            rows=(replace(info, context=len(context)),),
            row_starts=np.array([0, len(tokens)], dtype=np.int64),
            tokens=tokens,
            head_ids=_exchanged(row.head_ids, self.teacher_end, end),
            draw_ids=_exchanged(row.draw_ids, self.teacher_end, end),
        )


def has_conversation(info: RowInfo) -> bool:
    """Return whether a row is a response to messages; False for a document.

    Raises:
        TrainError: The row has a context without messages.
    """
    if not info.messages and info.context > 1:
        raise TrainError(
            f"document {info.document[:12]} window {info.window} has a context of {info.context} tokens and no "
            "messages, expected those that a chat template can render; train with --template stored on a student with "
            "the shards' tokenizer"
        )
    return bool(info.messages)


def _exchanged(ids: Int32, first: int, second: int) -> Int32:
    """Return ids with `first` and `second` in each other's place."""
    if first == second:
        return ids
    changed: Int32 = np.where(ids == first, second, np.where(ids == second, first, ids)).astype(ids.dtype)
    return changed
