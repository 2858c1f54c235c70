"""Where the rows of a dump come from: windows of documents, or conversations with a response.

A source knows the facts that identify its rows, and yields them as windows in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from shards.format.schema import DOCUMENTS_VERSION, RESPONSES_VERSION
from teacher_dump.config import DumpConfig
from teacher_dump.conversations import settings as conversation_settings
from teacher_dump.conversations.answer_corpus import AnswerCorpus
from teacher_dump.conversations.answered import AnsweredConversation
from teacher_dump.conversations.read import holds_conversations
from teacher_dump.conversations.template import ChatTemplate
from teacher_dump.conversations.verdicts import Verdicts
from teacher_dump.conversations.windows import AnswerWindows
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.filters import pipeline
from teacher_dump.errors import DumpError
from teacher_dump.model.model_folder import load_tokenizer
from teacher_dump.model.teachers import LocalTeacher
from teacher_dump.tasks.task_store import CorpusFacts
from teacher_dump.tasks.windowing import Window, cut_windows


class RowSource(Protocol):
    """The rows of a dump."""

    @property
    def version(self) -> int:
        """Format version of the cache."""

    def filters(self) -> dict[str, Any]:
        """Return what decides which documents or answers are kept, for the identity and the manifest."""

    def settings(self) -> dict[str, Any]:
        """Return the other facts about the corpus that decide its rows, for the identity and the manifest."""

    def end_tokens(self) -> tuple[int, ...]:
        """Return the ids that end a text or a turn."""

    def windows(self, facts: CorpusFacts) -> Iterator[Window]:
        """Yield the windows in order.

        Args:
            facts: Receives what is known about the corpus after the last window.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentSource:
    """Windows of documents. See `RowSource` for the interface."""

    config: DumpConfig
    model: LocalTeacher
    version: int = DOCUMENTS_VERSION

    def filters(self) -> dict[str, Any]:
        """Return the settings of the filters of documents."""
        return pipeline.provenance(self.config.filters)

    def settings(self) -> dict[str, Any]:
        """Return nothing: windows follow from the settings of the dump."""
        return {}

    def end_tokens(self) -> tuple[int, ...]:
        """Return the ids that end a text of the teacher."""
        return self.model.end_tokens

    def windows(self, facts: CorpusFacts) -> Iterator[Window]:
        """Cut the documents of the corpus."""
        corpus = Corpus(
            data=self.config.data,
            seed=self.config.seed,
            max_documents=self.config.max_documents,
            filters=self.config.filters,
            counts=facts.counts,
            drop_log=facts.drop_log,
        )
        return cut_windows(
            corpus,
            load_tokenizer(self.model.folder),
            prefix_tokens=self.model.prefix_tokens,
            window_tokens=self.config.window_tokens,
            counts=facts.counts,
            drop=corpus.drop,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerSource:
    """Conversations with a response each. See `RowSource` for the interface."""

    config: DumpConfig
    model: LocalTeacher
    template: ChatTemplate
    verdicts: Verdicts | None
    version: int = RESPONSES_VERSION

    @property
    def train_on(self) -> str:
        """`last` or `all`."""
        return self.config.conversations.train_on or "last"

    def filters(self) -> dict[str, Any]:
        """Return the settings of the filters that apply to conversations."""
        return conversation_settings.provenance(self.config.filters)

    def settings(self) -> dict[str, Any]:
        """Return the template, the end-of-turn token and the choice of responses."""
        return {
            "train_on": self.train_on,
            "chat_template": "plain" if self.template.is_plain else "own",
            "chat_template_sha256": self.template.sha256,
            "end_of_turn": self.template.end_of_turn,
            "verdicts_sha256": None if self.verdicts is None else self.verdicts.sha256,
        }

    def end_tokens(self) -> tuple[int, ...]:
        """Return the ids that end a text of the teacher, and the token that ends a turn."""
        return tuple(sorted({*self.model.end_tokens, self.template.end_of_turn}))

    def windows(self, facts: CorpusFacts) -> Iterator[Window]:
        """Render and tokenise the answers of the corpus."""
        corpus = AnswerCorpus(
            data=self.config.data,
            seed=self.config.seed,
            train_on=self.train_on,
            verdicts=self.verdicts,
            filters=self.config.filters,
            max_documents=self.config.max_documents,
            counts=facts.counts,
            drop_log=facts.drop_log,
        )
        windows = AnswerWindows(
            self.template,
            tokenizer=self.model.rules.fingerprint(),
            window_tokens=self.config.window_tokens,
            counts=facts.counts,
        )
        return windows.windows(self._of_one_writer(corpus, facts), corpus.drop)

    def _of_one_writer(
        self, answers: Iterable[AnsweredConversation], facts: CorpusFacts
    ) -> Iterator[AnsweredConversation]:
        """Yield answers, note their writer, and check that one model wrote all of them, or none."""
        is_first = True
        for answer in answers:
            if is_first:
                facts.writer, is_first = answer.writer, False
            if answer.writer != facts.writer:
                names = [writer.name if writer else "none" for writer in (facts.writer, answer.writer)]
                raise DumpError(
                    f"--data {self.config.data}: found answers of the writers {names[0]} and {names[1]}, or of other "
                    "settings of one, expected one writer, because the manifest names it: dump each file of answers to "
                    "a cache of its own"
                )
            yield answer


def row_source(config: DumpConfig, model: LocalTeacher, *, known_version: int | None) -> RowSource:
    """Return the source of a dump's rows.

    Args:
        config: The settings.
        model: The teacher.
        known_version: Format version of the dump in the folder, so that its corpus need not be there; None for a new
            one, whose corpus decides.

    Raises:
        DumpError: The corpus cannot be read, the settings do not fit it, or the teacher has no usable chat template.
    """
    if known_version is None:
        has_answers = holds_conversations(config.data)
    else:
        has_answers = known_version == RESPONSES_VERSION
    given = config.conversations
    if not has_answers:
        if given.are_given:
            raise DumpError(
                f"--data {config.data}: found no conversations, but --train-on or --verdicts is given; expected a "
                "table with `messages`, or with `prompt` and `completion`"
            )
        return DocumentSource(config=config, model=model)
    template = ChatTemplate.of(
        model.folder,
        load_tokenizer(model.folder),
        prefix_tokens=model.prefix_tokens,
        vocab_size=model.teacher.vocab_size,
    )
    verdicts = None if given.verdicts is None else Verdicts.load(given.verdicts, data=config.data)
    return AnswerSource(config=config, model=model, template=template, verdicts=verdicts)
