"""The rules in a tokenizer.json: the tokenizer's identity, its pieces, and the bytes of each token.

The file is parsed once per `TokenizerRules`. Only JSON is read: neither transformers nor tokenizers is needed. Names,
chat templates, padding and truncation are ignored, because they do not change the ids of a text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from shards.errors import ShardError
from shards.format.schema import canonical_json

_SPACE = "\u2581"
_SENTENCEPIECE = ("BPE", "Unigram")
_PARTS = ("normalizer", "pre_tokenizer", "model", "added_tokens")


@dataclass(frozen=True)
class TokenizerRules:
    """The parts of a tokenizer.json that determine the ids of a text. Load it once and pass it on."""

    folder: str
    """Folder of the file, for messages."""
    parts: dict[str, Any]
    """`normalizer`, `pre_tokenizer`, `model` and `added_tokens` as JSON. Each merge is a list of two pieces."""

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> TokenizerRules:
        """Parse the tokenizer.json in a folder.

        Raises:
            ShardError: If the file is missing, unreadable, or holds no tokenizer.
        """
        path = Path(folder) / "tokenizer.json"
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ShardError(
                f"{folder}: found no tokenizer.json, expected a fast tokenizer; save it with save_pretrained first"
            ) from None
        except OSError as error:
            raise ShardError(f"{path}: cannot read ({error.strerror or error}); check your permissions") from None
        except (ValueError, RecursionError) as error:
            raise ShardError(f"{path}: found no JSON ({error}); fetch the tokenizer again") from None
        model = data.get("model") if isinstance(data, dict) else None
        if not isinstance(model, dict):
            raise ShardError(
                f"{path}: found no tokenizer's rules, expected an object with a model; fetch the tokenizer again"
            )
        parts = {part: data.get(part) for part in _PARTS}
        # Older releases write a merge as "a b", newer ones as ["a", "b"].
        merges = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or []]
        parts["model"] = {**model, "merges": merges}
        return cls(os.fspath(folder), parts)

    @property
    def merges(self) -> list[list[str]]:
        """Pairs of pieces that BPE joins, in order of priority."""
        merges: list[list[str]] = self.parts["model"]["merges"]
        return merges

    @property
    def added_tokens(self) -> list[dict[str, Any]]:
        """Tokens beside the model's own vocabulary, with `id`, `content` and `special`."""
        return self.parts["added_tokens"] or []

    @cached_property
    def pieces(self) -> dict[str, int]:
        """Mapping from piece to id, added tokens included. Must not be changed."""
        vocab = self.parts["model"].get("vocab") or {}
        pieces = {p[0]: i for i, p in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
        return pieces | {t["content"]: t["id"] for t in self.added_tokens}

    def fingerprint(self) -> str:
        """Return the sha256 that identifies the tokenizer, hex.

        Raises:
            ShardError: If the tokenizer samples, so that its ids are not a function of the text.
        """
        if (sampling := self._sampling()) is not None:
            raise ShardError(
                f"{self.folder}: the tokenizer samples ({sampling} in tokenizer.json), so the same text gets other "
                "ids each time; expected a function of the text: set that field to null"
            )
        return hashlib.sha256(canonical_json(self.parts)).hexdigest()

    def pieces_from(self, vocab_size: int) -> list[tuple[int, str]]:
        """Return the pieces with ids of at least `vocab_size`, in order of their ids, without special tokens.

        Args:
            vocab_size: Number of rows of a model's embedding matrix.
        """
        special = {t["content"] for t in self.added_tokens if t.get("special")}
        return sorted((i, piece) for piece, i in self.pieces.items() if i >= vocab_size and piece not in special)

    def token_bytes(self) -> dict[int, bytes]:
        """Return the UTF-8 bytes of each id; empty for special tokens.

        The bytes come from the vocabulary, because decoding cannot show a part of a character. Two families are
        supported: byte-level BPE (GPT-2's printable characters for bytes), and SentencePiece with byte fallback
        (U+2581 for a space, <0xHH> for a byte). Ids without a piece (padding of the embedding matrix) are not in the
        table. Several ids may have the same bytes: SentencePiece has "!" and <0x21>.

        Raises:
            ShardError: If a piece fits neither family. The message names the token.
        """
        added = {t["content"]: t for t in self.added_tokens}
        byte_level = "ByteLevel" in json.dumps([self.parts["pre_tokenizer"], self.parts["normalizer"]])
        decode = self._piece_decoder(byte_level)
        table: dict[int, bytes] = {}
        for piece, token in self.pieces.items():
            if piece in added:
                # SentencePiece's own vocabulary may be listed again among the added tokens (runs of U+2581).
                text = piece if byte_level else piece.replace(_SPACE, " ")
                table[token] = b"" if added[piece]["special"] else text.encode()
                continue
            try:
                table[token] = decode(piece)
            except ValueError as error:
                raise ShardError(
                    f"{self.folder}: token {token} {piece!r} is {error}; expected a byte-level BPE or a SentencePiece "
                    "vocabulary with byte fallback"
                ) from None
        return table

    def _piece_decoder(self, byte_level: bool) -> Callable[[str], bytes]:
        if byte_level:
            return _byte_level_piece
        family = self.parts["model"].get("type", "BPE")
        return _sentencepiece_piece if family in _SENTENCEPIECE else _unsupported_piece

    def _sampling(self) -> str | None:
        """Return the field of the model that makes the tokenizer sample, None if there is none."""
        model = self.parts["model"]
        for name in ("dropout", "alpha"):  # of BPE, and of Unigram
            if model.get(name):
                return f"{name} {model[name]}"
        if (best := model.get("nbest_size")) not in (None, 0, 1):
            return f"nbest_size {best}"
        return None


def _byte_level_piece(piece: str) -> bytes:
    try:
        return bytes(_BYTE_OF[c] for c in piece)
    except KeyError as error:
        raise ValueError(f"no byte-level piece ({error} stands for no byte)") from None


def _sentencepiece_piece(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ").encode()


def _unsupported_piece(piece: str) -> bytes:
    raise ValueError("a piece of another family (WordPiece, WordLevel), which does not say what stood before it")


def _byte_characters() -> dict[str, int]:
    """Return character -> byte of byte-level BPE: printable Latin-1 is itself, the rest counts from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(rest)}


_BYTE_OF = _byte_characters()
