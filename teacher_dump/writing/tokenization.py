"""Token ids of prompts, and the ids that end a response, by the writer's own tokenizer and chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from teacher_dump.conversations.template import ChatTemplate
from teacher_dump.model.model_folder import load_config, load_tokenizer
from teacher_dump.model.teachers import LocalTeacher
from teacher_dump.writing.prompts.prompt import ResponsePrompt
from teacher_dump.writing.task import ResponseRequest, WritingTask, response_seed

NO_LIMIT = 1 << 30
"""Context of a model whose config states none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterTokens:
    """The writer's tokenizer and template."""

    tokenizer: Any
    """A fast transformers tokenizer."""
    template: ChatTemplate
    end_ids: frozenset[int]
    """Ids that end a response."""
    context_length: int
    """Most tokens of a prompt with its response."""
    padded_vocab_size: int
    """Number of rows of the writer's embedding."""

    @classmethod
    def of(cls, model: LocalTeacher) -> WriterTokens:
        """Load the tokenizer of a writer.

        Raises:
            DumpError: It does not load, or its template does not render.
        """
        tokenizer = load_tokenizer(model.folder)
        vocab_size = model.teacher.vocab_size
        template = ChatTemplate.of(model.folder, tokenizer, prefix_tokens=model.prefix_tokens, vocab_size=vocab_size)
        config = load_config(model.folder)
        ends = {template.end_of_turn, *model.end_tokens, *_generation_ends(model), *tokenizer.all_special_ids}
        return cls(
            tokenizer=tokenizer,
            template=template,
            end_ids=frozenset(i for i in ends if i < vocab_size),
            context_length=config.get("max_position_embeddings") or NO_LIMIT,
            padded_vocab_size=config["vocab_size"],
        )

    def prompt_ids(self, prompt: ResponsePrompt) -> tuple[int, ...]:
        """Return the ids that the writer continues.

        Raises:
            TemplateRefusal: The template does not accept the conversation.
        """
        return self.template.context_ids(prompt.conversation())

    def special_token_in(self, prompt: ResponsePrompt) -> str | None:
        """Return a special token that the text of a prompt spells, which would end a turn inside it; None if none."""
        texts = [message["content"] for message in prompt.conversation()]
        return next((t for t in self.template.special_tokens if any(t in text for text in texts)), None)

    def requests(self, task: WritingTask, seed: int) -> list[ResponseRequest]:
        """Return the requests of a task, in the order of prompts and indices."""
        return [
            ResponseRequest(
                prompt=prompt, index=index, seed=response_seed(seed, prompt.document, index), prompt_ids=ids
            )
            for prompt, ids in zip(task.prompts, map(self.prompt_ids, task.prompts), strict=True)
            for index in range(task.samples)
        ]


def _generation_ends(model: LocalTeacher) -> Sequence[int]:
    """Return the end ids of generation_config.json, which chat models extend by the end of a turn."""
    try:
        ends = json.loads((model.folder / "generation_config.json").read_bytes()).get("eos_token_id")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ()
    return [i for i in (ends if isinstance(ends, list) else [ends]) if isinstance(i, int)]
