"""Find the tokenizer of an imported cache, in a folder or on the hub, and its special ids."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import ShardError, first_line
from shards.model_files.tokenizer import TokenizerRules
from shards.model_files.tokenizer_files import TOKENIZER_FILES

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundTokenizer:
    """A tokenizer's folder and what an import needs of it."""

    folder: Path
    rules: TokenizerRules
    pad_token: int | None
    """Id of the padding token; None if there is none, or if it also ends texts."""

    def prefix(self, first_tokens: Set[int]) -> tuple[int, ...]:
        """Return the ids before the text of each row: the first token, if it is one special token in every row.

        Args:
            first_tokens: First tokens of all rows.
        """
        special = {t["id"] for t in self.rules.added_tokens if t.get("special")}
        return tuple(first_tokens) if len(first_tokens) == 1 and first_tokens <= special else ()


def find_tokenizer(name: str) -> FoundTokenizer:
    """Return the tokenizer in a folder, or on the hub.

    Args:
        name: Path of a folder with tokenizer.json, or NAME or NAME@REVISION of a repository.

    Raises:
        ShardError: If there is no such tokenizer, or it cannot be fetched.
    """
    folder = Path(name) if Path(name).exists() else _fetch(name)
    rules = TokenizerRules.load(folder)
    config = _config(folder)
    pad, end = (rules.pieces.get(_content(config.get(key))) for key in ("pad_token", "eos_token"))
    return FoundTokenizer(folder=folder, rules=rules, pad_token=None if pad == end else pad)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ShardError(f"{path}: found no JSON ({first_line(error)}); fetch the tokenizer again") from None
    return config if isinstance(config, dict) else {}


def _content(token: Any) -> str:
    """Return the text of a token, which is a string or an object with its content; "" if there is none."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""


def _fetch(name: str) -> Path:
    if not _HUB_NAME.fullmatch(name):
        raise ShardError(f"--tokenizer {name}: found no such folder, expected one with tokenizer.json, or a hub name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ShardError(
            f"--tokenizer {name}: found no such folder, and huggingface_hub is not installed; run pip install "
            "'teacherless[hub]', or name a folder with tokenizer.json"
        ) from None
    repo, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(TOKENIZER_FILES)))
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors or, for bad names, ValueErrors
        raise ShardError(
            f"--tokenizer {name}: found no such folder, and could not fetch it from the hub ({first_line(error)}); "
            "name a folder with tokenizer.json"
        ) from None
