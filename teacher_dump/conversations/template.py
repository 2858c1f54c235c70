"""The chat template of a model: messages to the token ids of a context, and the token that ends a turn.

A base model has no chat template. It gets the plain one: the content of each message and a line feed, after the tokens
that begin every text. Its end-of-turn token is the tokenizer's EOS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from shards.errors import first_line
from shards.format.messages import Message
from teacher_dump.errors import DumpError
from teacher_dump.model.special_tokens import special_tokens

PLAIN = "{content}\n"
"""The template of a model without one, for each message."""
_QUESTION: list[Message] = [{"role": "user", "content": "question"}]
_ANSWER: Message = {"role": "assistant", "content": "teacherless answer"}


class TemplateRefusal(DumpError):
    """A chat template does not accept a conversation."""


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of one model.

    Make it with `ChatTemplate.of`, which checks it.
    """

    folder: Path
    tokenizer: Any
    """Of transformers."""
    prefix_tokens: tuple[int, ...]
    """Ids before the text of the plain template. A model's own template writes them itself."""
    vocab_size: int

    @classmethod
    def of(cls, folder: Path, tokenizer: Any, *, prefix_tokens: tuple[int, ...], vocab_size: int) -> ChatTemplate:
        """Return the template of a model, after a check that it renders and that a token ends its turns.

        Args:
            folder: Folder of the model, for messages.
            tokenizer: Its transformers tokenizer.
            prefix_tokens: Ids at the start of every text that the model sees.
            vocab_size: Number of ids that can have probability.

        Raises:
            DumpError: The template does not render a question, or no token of the vocabulary ends a turn.
        """
        template = cls(folder, tokenizer, tuple(prefix_tokens), vocab_size)
        if not template.context_ids(_QUESTION):
            raise DumpError(f"{folder}: its chat template renders a question as no token; use another --model")
        template.require_end_of_turn()
        return template

    @property
    def is_plain(self) -> bool:
        """Whether the model has no template of its own."""
        return not getattr(self.tokenizer, "chat_template", None)

    @property
    def sha256(self) -> str:
        """Digest of the template, hex. It is part of a cache's identity, because the tokenizer's is without it."""
        source = PLAIN if self.is_plain else str(self.tokenizer.chat_template)
        return hashlib.sha256(source.encode()).hexdigest()

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text that a response to the messages follows.

        Raises:
            TemplateRefusal: The template does not accept these messages.
        """
        if self.is_plain:
            return "".join(PLAIN.format(content=message["content"]) for message in messages)
        return self._apply(messages, add_generation_prompt=True)

    def context_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the token ids that a response to the messages follows.

        Raises:
            TemplateRefusal: The template does not accept these messages.
        """
        ids = self.text_ids(self.render(messages))
        return (*self.prefix_tokens, *ids) if self.is_plain else ids

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a text, with nothing added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the special tokens by the text that the tokenizer turns into one."""
        return special_tokens(self.tokenizer)

    @cached_property
    def end_of_turn(self) -> int:
        """Id of the token that ends a response: the first special token that the template writes after one, or EOS."""
        special = set(self.special_tokens.values())
        after = [i for i in self.text_ids(self._after_response()) if i in special]
        eos = self.tokenizer.eos_token_id
        return int(next(iter(after), -1 if eos is None else eos))

    def require_end_of_turn(self) -> None:
        """Check that a token of the vocabulary ends a response.

        Raises:
            DumpError: There is none.
        """
        if not 0 <= self.end_of_turn < self.vocab_size:
            found = "no such token" if self.end_of_turn < 0 else f"{self.end_of_turn} of {self.vocab_size:,} ids"
            raise DumpError(
                f"{self.folder}: found {found}, expected a special token that ends a response, in its chat template or "
                "as EOS; set eos_token in tokenizer_config.json"
            )

    def _after_response(self) -> str:
        """Return what the template writes after a response, "" for the plain template."""
        if self.is_plain:
            return ""
        whole = self._apply([*_QUESTION, _ANSWER], add_generation_prompt=False)
        return whole.rpartition(_ANSWER["content"])[2]

    def _apply(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=add_generation_prompt, tokenize=False
            )
        except Exception as error:  # a template is a program that raises errors of any type
            raise TemplateRefusal(
                f"{self.folder}: its chat template does not render a conversation ({first_line(error)}); expected one "
                "that takes the roles of the data; correct the template, or use another --model"
            ) from None
        return str(text)
