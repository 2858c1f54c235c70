"""Windows of answers: the context and the response as the teacher reads them, one row each.

An answer that a model with the teacher's tokenizer wrote keeps the ids that the model saw and generated: tokenising its
text again may give others. Every other answer is rendered with the teacher's chat template and tokenised, context and
response apart, so that no token holds parts of both. The ids of a response decode to its text behind the context: a
SentencePiece tokenizer adds a space to a text that it tokenises alone, and drops one of a text that it decodes alone. A
response that ended by itself ends with the end-of-turn token, which has a record like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from shards.format.chunk import RowInfo
from shards.format.messages import parse_messages
from teacher_dump.conversations.answer_corpus import USED
from teacher_dump.conversations.answered import AnsweredConversation
from teacher_dump.conversations.template import ChatTemplate, TemplateRefusal
from teacher_dump.tasks.windowing import Window

CUT, OTHER_CONTEXT = "responses cut at --window-tokens", "contexts of the writer's template, not the teacher's"
"""Names of counts."""
_CUT_TRIES = 8
"""Tokens that a cut moves back at most to reach the end of a character."""

_REPLACEMENT = "\ufffd"
_SENTINEL = "\n"
"""Text that a response is tokenised behind where the tokenizer begins each text with a space."""

Ids = tuple[int, ...]
DropAnswer = Callable[[AnsweredConversation, str, str], None]
"""Receives a dropped answer, the reason and what was found."""


class _UnusableAnswer(Exception):
    """An answer that is dropped, with the reason and what was found."""


class AnswerWindows:
    """Makes the windows of answers for one teacher.

    Args:
        template: The teacher's chat template.
        tokenizer: Fingerprint of the teacher's tokenizer.
        window_tokens: Most tokens of a window, context included.
        counts: Receives the number of answers that are used, and of what is special about them.
    """

    def __init__(self, template: ChatTemplate, *, tokenizer: str, window_tokens: int, counts: Counter[str]) -> None:
        self._template, self._tokenizer = template, tokenizer
        self._window_tokens, self._counts = window_tokens, counts
        self._last_context: tuple[str, Ids] = ("", ())
        """The messages that were rendered last, and their ids: answers to one conversation follow each other."""
        self._last_decoded: tuple[Ids, str] = ((), "")
        """The context that was decoded last, and its text."""

    def windows(self, answers: Iterable[AnsweredConversation], drop: DropAnswer) -> Iterator[Window]:
        """Yield the window of each answer.

        Args:
            answers: The answers, each with its index.
            drop: Called with each dropped answer.

        Raises:
            TemplateRefusal: The template refuses the conversation of every answer.
        """
        refusal: TemplateRefusal | None = None
        is_any = False
        for answer in answers:
            try:
                window = self._window(answer)
            except TemplateRefusal as error:
                refusal = refusal or error
                drop(answer, "refused by the chat template", str(error))
            except _UnusableAnswer as error:
                drop(answer, *error.args)
            else:
                is_any = True
                self._counts[USED] += 1
                yield window
        if refusal is not None and not is_any:
            raise refusal

    def _window(self, answer: AnsweredConversation) -> Window:
        generated = answer.generated
        if generated is not None and answer.writer is not None and answer.writer.tokenizer == self._tokenizer:
            context, ids = generated.prompt_ids, generated.ids
            if max(*context, *ids) >= self._template.vocab_size:
                raise _UnusableAnswer("ids beyond the teacher's vocabulary", f"id {max(*context, *ids)}")
            if context != self._own_context(answer.messages):
                self._counts[OTHER_CONTEXT] += 1
        else:
            answer = _at_character_end(answer)
            context, ids = self._rendered(answer)
        room = self._window_tokens - len(context)
        if room < 1:
            raise _UnusableAnswer("no room for the response in --window-tokens", f"{len(context):,} tokens of context")
        text = answer.response
        if len(ids) > room:
            self._counts[CUT] += 1
            ids, text = self._cut(context, ids, room, text)
        assert answer.index is not None, "the corpus numbers every answer"
        return Window(
            info=RowInfo(
                document=answer.document,
                window=answer.index,
                byte_start=0,
                byte_end=len(text.encode()),
                source=answer.source,
                path=answer.path,
                licence=answer.licence or "",
                context=len(context),
                messages=answer.messages,
            ),
            tokens=np.array([*context, *ids], dtype=np.int32),
        )

    def _own_context(self, messages: str) -> Ids | None:
        """Return the context that the teacher's template gives, None if it refuses the conversation."""
        try:
            return self._context(messages)
        except TemplateRefusal:
            return None

    def _context(self, messages: str) -> Ids:
        if self._last_context[0] != messages:
            self._last_context = messages, self._template.context_ids(parse_messages(messages))
        return self._last_context[1]

    def _rendered(self, answer: AnsweredConversation) -> tuple[Ids, Ids]:
        """Return the context and the response of an answer that is given as text."""
        texts = [*(message["content"] for message in parse_messages(answer.messages)), answer.response]
        for token in self._template.special_tokens:
            if any(token in text for text in texts):
                raise _UnusableAnswer("contains special tokens", token)
        context = self._context(answer.messages)
        for ids in self._tokenisations(answer.response):
            if self._text_behind(context, ids) == answer.response:
                return context, (*ids, self._template.end_of_turn) if answer.ended else ids
        raise _UnusableAnswer("tokenizer does not round-trip", "the response")

    def _tokenisations(self, response: str) -> Iterator[Ids]:
        """Yield ids that a response may have: those of the text alone, and those behind a sentinel."""
        yield self._template.text_ids(response)
        sentinel = self._template.text_ids(_SENTINEL)
        ids = self._template.text_ids(_SENTINEL + response)
        if ids[: len(sentinel)] == sentinel:
            yield ids[len(sentinel) :]

    def _cut(self, context: Ids, ids: Ids, room: int, text: str) -> tuple[Ids, str]:
        """Return the first ids of a response, at most `room`, and their text; the cut is at the end of a character."""
        for length in range(room, max(0, room - _CUT_TRIES), -1):
            kept = self._text_behind(context, ids[:length])
            if kept is not None and text.startswith(kept):
                return ids[:length], kept
        return ids[:room], self._decoded(ids[:room])

    def _text_behind(self, context: Ids, ids: Ids) -> str | None:
        """Return the text that ids add to the text of their context, None if they change it."""
        if self._last_decoded[0] != context:
            self._last_decoded = context, self._decoded(context)
        before, whole = self._last_decoded[1], self._decoded((*context, *ids))
        return whole[len(before) :] if whole.startswith(before) else None

    def _decoded(self, ids: Ids) -> str:
        return str(self._template.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _at_character_end(answer: AnsweredConversation) -> AnsweredConversation:
    """Return an answer that was cut inside a character without the sign that stands for the part of it."""
    if answer.ended or not answer.response.endswith(_REPLACEMENT):
        return answer
    return replace(answer, response=answer.response.rstrip(_REPLACEMENT))
