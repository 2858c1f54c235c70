"""When are two tokenizers the same, and which bytes does a token stand for? Answers taken from tokenizer.json.

Only JSON is read, so this needs neither transformers nor tokenizers. Names, chat templates, padding and
truncation do not count: they do not change the ids of a text.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from shards.errors import ShardError
from shards.format.schema import canonical_json

_SPACE = "\u2581"
_SENTENCEPIECE = ("BPE", "Unigram")
_PARTS = ("normalizer", "pre_tokenizer", "model", "added_tokens")


def read_rules(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the parts of a folder's tokenizer.json that decide the ids of a text. Raises ShardError."""
    path = Path(folder) / "tokenizer.json"
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ShardError(
            f"{folder}: found no tokenizer.json, expected a fast tokenizer; save it with save_pretrained first"
        ) from None
    except OSError as error:
        raise ShardError(f"{path}: cannot read ({error.strerror or error}); check your rights to it") from None
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path}: found no JSON ({error}); fetch the tokenizer again") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise ShardError(
            f"{path}: found no tokenizer's rules, expected an object with a model; fetch the tokenizer again"
        )
    rules = {part: data.get(part) for part in _PARTS}
    # Merges are written as "a b" by older releases and as ["a", "b"] by newer ones.
    model = dict(rules["model"] or {})
    model["merges"] = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or []]
    rules["model"] = model
    return rules


def fingerprint(folder: str | os.PathLike[str]) -> str:
    """Return the sha256 that identifies the tokenizer in a folder.

    Raises ShardError where there is none, or where it samples: its ids are then no function of the text.
    """
    rules = read_rules(folder)
    if (sampling := _sampling(rules["model"])) is not None:
        raise ShardError(
            f"{folder}: the tokenizer samples ({sampling} in tokenizer.json), so the same text gets other ids each "
            "time; expected a function of the text: set that field to null"
        )
    return hashlib.sha256(canonical_json(rules)).hexdigest()


def _sampling(model: dict[str, Any]) -> str | None:
    """Return the field of a tokenizer's model that makes it sample, None for a function of the text."""
    for name in ("dropout", "alpha"):  # of BPE, and of Unigram
        if model.get(name):
            return f"{name} {model[name]}"
    if (best := model.get("nbest_size")) not in (None, 0, 1):
        return f"nbest_size {best}"
    return None


def vocabulary(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Return piece -> id, added tokens included."""
    rules = read_rules(folder)
    vocab = rules["model"].get("vocab") or {}
    pieces = {p[0]: i for i, p in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return pieces | {t["content"]: t["id"] for t in rules["added_tokens"] or []}


def ids_beyond(folder: str | os.PathLike[str], vocab_size: int) -> list[tuple[int, str]]:
    """Return (id, piece) of what a model of `vocab_size` rows has no row for, in order; special tokens left out."""
    special = {t["content"] for t in read_rules(folder)["added_tokens"] or [] if t.get("special")}
    return sorted((i, piece) for piece, i in vocabulary(folder).items() if i >= vocab_size and piece not in special)


def token_bytes(folder: str | os.PathLike[str]) -> dict[int, bytes]:
    """Return id -> the UTF-8 bytes that it stands for, empty for special tokens.

    From the vocabulary, never from decoding, which cannot show a part of a character. Two families are known:
    byte-level BPE (GPT-2's printable stand-ins for bytes) and SentencePiece with byte fallback (U+2581 for a space,
    <0xHH> for a byte). Ids that no piece has (padding of the model's vocabulary) are not in the table; several ids
    may stand for the same bytes (SentencePiece has "!" and <0x21>).

    Raises ShardError, naming the token, where a piece fits neither.
    """
    rules = read_rules(folder)
    added = {t["content"]: t for t in rules["added_tokens"] or []}
    byte_level = "ByteLevel" in json.dumps([rules["pre_tokenizer"], rules["normalizer"]])
    kind = rules["model"].get("type", "BPE")
    of_piece = _byte_level_piece if byte_level else _sentencepiece_piece if kind in _SENTENCEPIECE else _no_piece
    table: dict[int, bytes] = {}
    for piece, token in vocabulary(folder).items():
        if piece in added:
            # SentencePiece's own vocabulary may be listed again among the added tokens (runs of U+2581).
            text = piece if byte_level else piece.replace(_SPACE, " ")
            table[token] = b"" if added[piece]["special"] else text.encode()
            continue
        try:
            table[token] = of_piece(piece)
        except ValueError as error:
            raise ShardError(
                f"{folder}: token {token} {piece!r} is {error}; expected a byte-level BPE or a SentencePiece "
                "vocabulary with byte fallback"
            ) from None
    return table


def _byte_level_piece(piece: str) -> bytes:
    try:
        return bytes(_BYTE_OF[c] for c in piece)
    except KeyError as error:
        raise ValueError(f"no byte-level piece ({error} stands for no byte)") from None


def _sentencepiece_piece(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ").encode()


def _no_piece(piece: str) -> bytes:
    raise ValueError("a piece of another family (WordPiece, WordLevel), which does not say what stood before it")


def _byte_stand_ins() -> dict[str, int]:
    """Return character -> byte of byte-level BPE: printable Latin-1 stands for itself, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(rest)}


_BYTE_OF = _byte_stand_ins()
