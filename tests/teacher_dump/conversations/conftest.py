"""A tiny chat teacher, and files of conversations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from shards.format.messages import Message
from teacher_dump.conversations.template import ChatTemplate
from teacher_dump.model.teachers import resolve

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WRITER: dict[str, Any] = {
    "name": "student",
    "revision": "",
    "weights_sha256": "1" * 64,
    "tokenizer": "of another model",
    "temperature": 0.8,
    "top_p": 0.95,
    "max_new_tokens": 32,
    "seed": 0,
}


def question(text: str = "Print the total.") -> Message:
    """Return a message of a user."""
    return {"role": "user", "content": text}


def answer(text: str = "print(total)\n") -> Message:
    """Return a message of an assistant."""
    return {"role": "assistant", "content": text}


def write_lines(path: Path, rows: Iterable[dict[str, Any] | bytes]) -> Path:
    """Write rows as JSONL; bytes are a line as they are."""
    path.write_bytes(b"".join(r + b"\n" if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows))
    return path


def make_chat(folder: Path) -> Path:
    """Give a tiny teacher a chat template and the special tokens that it writes."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_teacher(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny teacher with a chat template and an end-of-turn token of its own."""
    return make_chat(Path(shutil.copytree(tiny_teacher, tmp_path_factory.mktemp("chat") / "chat")))


def template_of(folder: Path) -> ChatTemplate:
    """Return the chat template of a folder."""
    from transformers import AutoTokenizer

    model = resolve(str(folder))
    return ChatTemplate.of(
        folder,
        AutoTokenizer.from_pretrained(folder),
        prefix_tokens=model.prefix_tokens,
        vocab_size=model.teacher.vocab_size,
    )


def sentencepiece(prefix: str) -> Any:
    """Return a tokenizer of SentencePiece's family, with byte fallback.

    Args:
        prefix: How it begins a text with a space: `normalizer`, always; or a prepend scheme of `Metaspace`, which adds
            none to a text that begins with one.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    space = "\u2581"
    merges = [(space, space), (2 * space, 2 * space), ("r", "e"), ("re", "t"), (space, "ret")]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), space, *map(chr, range(33, 127))]
    vocab = {piece: i for i, piece in enumerate([*pieces, *(a + b for a, b in merges)])}
    rules = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    if prefix == "normalizer":
        rules.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    else:
        rules.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    rules.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
