"""The special tokens of a tokenizer. A text must not contain one: the tokenizer would turn it into a control token."""

from __future__ import annotations

from typing import Any


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the ids of the special tokens by the text that the tokenizer turns into one.

    These are the tokens with a role, such as EOS, and all others that the table of added tokens marks as special.
    Llama 3's files give most of them no role.

    Args:
        tokenizer: A fast transformers tokenizer.
    """
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {**dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)), **added}
