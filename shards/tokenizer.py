"""When are two tokenizers the same? A digest of what decides the ids of a text, taken from tokenizer.json.

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
from shards.schema import canonical_json

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
    except ValueError as error:
        raise ShardError(f"{path}: found no JSON ({error}); fetch the tokenizer again") from None
    rules = {part: data.get(part) for part in _PARTS}
    # Merges are written as "a b" by older releases and as ["a", "b"] by newer ones.
    model = dict(rules["model"] or {})
    model["merges"] = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or []]
    rules["model"] = model
    return rules


def fingerprint(folder: str | os.PathLike[str]) -> str:
    """Return the sha256 that identifies the tokenizer in a folder."""
    return hashlib.sha256(canonical_json(read_rules(folder))).hexdigest()


def vocabulary(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Return piece -> id, added tokens included."""
    rules = read_rules(folder)
    vocab = rules["model"].get("vocab") or {}
    pieces = {p[0]: i for i, p in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return pieces | {t["content"]: t["id"] for t in rules["added_tokens"] or []}
