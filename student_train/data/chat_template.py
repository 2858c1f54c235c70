"""A tokenizer's chat template: the context of a response in its tokens, and the token that ends a turn.

A tokenizer without a template gets a plain one: each message and a line break, after the token that begins a text.
`teacher-dump` gives a base model the same. Only templates are run: transformers does that in a sandbox.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import first_line
from shards.format.chunk import Int64
from shards.format.messages import Message, parse_messages
from student_train.errors import StudentError, TrainError

PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
"""The template of a tokenizer without one, in transformers' language."""
_KEPT_CONTEXTS = 4096
"""Contexts whose ids are kept: all responses to a prompt share one."""
_ANSWER = "ANSWER"
"""Stands for a response where a conversation is rendered to see what ends it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StudentTemplate:
    """A chat template and its tokenizer."""

    name: str
    """Name of the model, for messages."""
    tokenizer: Any
    """transformers tokenizer."""

    @classmethod
    def load(cls, name: str, folder: Path) -> StudentTemplate:
        """Return the template of the tokenizer in a folder.

        Raises:
            StudentError: The tokenizer does not load.
        """
        from transformers import AutoTokenizer

        try:
            return cls(name=name, tokenizer=AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
        except Exception as error:  # each tokenizer class raises its own errors on a bad file
            raise StudentError(
                f"{name}: the tokenizer in {folder} does not load ({first_line(error)}); expected what "
                "save_pretrained writes"
            ) from None

    @property
    def is_plain(self) -> bool:
        """Whether the tokenizer has no template of its own."""
        return not self.tokenizer.chat_template

    @property
    def source(self) -> str:
        """The template, in transformers' language."""
        return PLAIN_TEMPLATE if self.is_plain else str(self.tokenizer.get_chat_template())

    @property
    def exported(self) -> str:
        """The template as a program that renders contexts needs it: the plain one with its prefix."""
        if not self.is_plain:
            return self.source
        pieces = "".join(self.tokenizer.convert_ids_to_tokens(list(self.prefix)))
        return f"{{{{ {json.dumps(pieces)} }}}}{self.source}"

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """The token before a text, in a context without a template: the tokenizer's own, or what separates texts."""
        own = self.tokenizer("")["input_ids"]
        separator = self.tokenizer.get_vocab().get("<|endoftext|>")
        candidates = (*own[:1], separator, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return tuple(int(i) for i in candidates if i is not None)[:1]

    def render(self, messages: list[Message], *, open_answer: bool = True) -> str:
        """Return a conversation as text; with `open_answer`, up to the begin of the next answer.

        Raises:
            TrainError: The template cannot render the conversation.
        """
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self.source, add_generation_prompt=open_answer, tokenize=False
            )
        except Exception as error:  # a template is a program that raises errors of any type
            roles = ", ".join(message["role"] for message in messages)
            raise TrainError(
                f"{self.name}: its chat template cannot render a conversation of {roles} ({first_line(error)}); "
                "expected one that takes these roles in this order; choose another student"
            ) from None
        return str(text)

    def context_ids(self, messages: str) -> Int64:
        """Return the ids of the context of a response.

        Args:
            messages: The conversation up to the response, as `RowInfo.messages` has it.

        Raises:
            TrainError: The template cannot render the conversation.
            shards.ShardError: `messages` is no conversation.
        """
        return _context_ids(self, messages)

    @cached_property
    def end_of_turn(self) -> int:
        """The token that ends an answer: the first special token after it, or else the tokenizer's end of text.

        Raises:
            StudentError: There is neither.
        """
        question = {"role": "user", "content": "?"}
        text = self.render([question, {"role": "assistant", "content": _ANSWER}], open_answer=False)
        rest = text.rpartition(_ANSWER)[2]
        special = set(self.tokenizer.all_special_ids) | {
            i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }
        ends = [i for i in self.tokenizer(rest, add_special_tokens=False)["input_ids"] if i in special]
        end = ends[0] if ends else self.tokenizer.eos_token_id
        if end is None:
            raise StudentError(
                f"{self.name}: found no token that ends a turn, expected one after an answer in the chat template, or "
                "an end-of-text token; set eos_token in tokenizer_config.json"
            )
        return int(end)


@lru_cache(maxsize=_KEPT_CONTEXTS)
def _context_ids(template: StudentTemplate, messages: str) -> Int64:
    text = template.render(parse_messages(messages))
    ids = list(template.tokenizer(text, add_special_tokens=False)["input_ids"])
    if template.is_plain:
        ids = [*template.prefix, *ids]
    if not ids:
        raise TrainError(
            f"{template.name}: its chat template renders the conversation {messages[:80]} as no token, expected at "
            "least one before the response; choose another student"
        )
    context = np.asarray(ids, dtype=np.int64)
    context.setflags(write=False)
    return context
