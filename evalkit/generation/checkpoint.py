"""Checkpoints: find a transformers folder or hub id, check its files, and compute its digest.

This module neither loads weights nor imports torch, so a bad folder is reported at once.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import read_json, sha256_file, sha256_text

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""Patterns of weight files."""
_IDENTITY = (
    *_WEIGHTS,
    "*.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
"""Patterns of the files that determine a model's answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Location and identity of a model that can be loaded."""

    source: str
    """The folder or hub id, as given."""
    sha256: str
    """Digest over the names and digests of all files that matter; for a hub id, over id and commit."""
    folder: Path | None
    """The local folder, or None for a hub id."""
    revision: str | None = None
    """The hub's commit."""

    def to_dict(self) -> dict[str, Any]:
        """Return what a result records of the checkpoint."""
        return {key: value for key, value in asdict(self).items() if key != "folder"}


def identity_files(folder: Path) -> list[Path]:
    """Return the files that the checkpoint's digest covers."""
    return sorted({path for pattern in _IDENTITY for path in folder.glob(pattern) if path.is_file()})


def weight_files(folder: Path) -> list[Path]:
    """Return the files that the weights are loaded from: one file, those of an index, or all that match."""
    for kind, single in (("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")):
        indices = sorted(folder.glob(f"*.{kind}.index.json"))
        if (folder / single).is_file():
            return [folder / single]
        if indices:
            names = read_json(indices[0], what="an index of weight files")["weight_map"].values()
            return sorted({folder / name for name in names})
        if files := sorted(folder.glob(f"*.{kind}")):
            return files
    return []


def would_belong(folder: Path, path: Path) -> bool:
    """Return whether a file at `path` would be part of the checkpoint in `folder`."""
    if os.path.realpath(path.parent) != os.path.realpath(folder):
        return False
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _IDENTITY)


def find_checkpoint(source: str) -> Checkpoint:
    """Return the checkpoint in a folder or under a hub id.

    Raises:
        EvalError: `source` is neither, or the folder holds no complete checkpoint.
    """
    folder = Path(source)
    if folder.is_dir():
        return _in_folder(source, folder)
    if folder.suffix.lower() == ".gguf" and folder.is_file():
        raise _gguf_error(source, folder.name)
    if folder.is_file():
        raise EvalError(f"{source}: is a file, expected a transformers folder; for samples use --samples {source}")
    if not _HUB_ID.fullmatch(source):
        raise EvalError(
            f"{source}: no such folder; expected a transformers checkpoint folder (student-train writes one) "
            "or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct"
        )
    return _on_hub(source)


def has_chat_template(checkpoint: Checkpoint) -> bool:
    """Return whether the checkpoint names a template of chats, so that it was trained to answer messages."""
    if checkpoint.folder is None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, revision=checkpoint.revision)
        return bool(getattr(tokenizer, "chat_template", None))
    if any(checkpoint.folder.glob("chat_template*")):
        return True
    path = checkpoint.folder / "tokenizer_config.json"
    settings = read_json(path, what="the settings of a tokenizer") if path.is_file() else {}
    return isinstance(settings, dict) and bool(settings.get("chat_template"))


def _in_folder(source: str, folder: Path) -> Checkpoint:
    _check_config(source, folder)
    _check_weight_files(source, folder)
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        raise EvalError(f"{source}: holds no tokenizer; expected tokenizer.json beside config.json; save it there too")
    try:
        parts = [[path.name, sha256_file(path)] for path in identity_files(folder)]
    except OSError as error:
        raise EvalError(
            f"{error.filename}: cannot be read ({error.strerror}); expected a part of a checkpoint"
        ) from error
    return Checkpoint(source=source, sha256=sha256_text(json.dumps(parts)), folder=folder)


def _check_config(source: str, folder: Path) -> None:
    """Refuse adapters, GGUF files and folders without a transformers configuration."""
    if (folder / "adapter_config.json").is_file():
        raise EvalError(
            f"{source}: holds an adapter (adapter_config.json), expected a whole model; merge it into its base "
            "model (peft: merge_and_unload) and save that"
        )
    gguf = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    if gguf and not _has_weights(folder):
        raise _gguf_error(source, gguf[0])
    if not (folder / "config.json").is_file():
        entries = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6]) or "nothing"
        raise EvalError(
            f"{source}: is not a checkpoint: found {entries}, expected config.json, a tokenizer and "
            "*.safetensors; name the folder that student-train or save_pretrained wrote"
        )
    config = read_json(folder / "config.json", what="a model's configuration")
    if not isinstance(config, dict) or "model_type" not in config:
        raise EvalError(f"{source}/config.json: names no model_type; expected a transformers configuration")


def _check_weight_files(source: str, folder: Path) -> None:
    """Refuse a folder without weights, and an index that is broken or names missing files."""
    if not _has_weights(folder):
        raise EvalError(f"{source}: holds no weights; expected *.safetensors beside config.json; export it again")
    kind = "safetensors" if any(folder.glob("*.safetensors*")) else "bin"  # transformers prefers safetensors
    for index in folder.glob(f"*.{kind}.index.json"):
        content = read_json(index, what="an index of weight files")
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise EvalError(f"{index}: holds no weight_map; expected tensors and their files; export the model again")
        if missing := sorted(name for name in {*weight_map.values()} if not (folder / name).is_file()):
            raise EvalError(f"{source}: lacks {missing[0]}, which {index.name} names; copy the whole checkpoint")


def _has_weights(folder: Path) -> bool:
    return any(True for pattern in _WEIGHTS for _ in folder.glob(pattern))


def _gguf_error(source: str, name: str) -> EvalError:
    return EvalError(
        f"{source}: its weights are GGUF ({name}), expected *.safetensors beside config.json and a tokenizer; convert "
        f"them once: transformers' from_pretrained(FOLDER, gguf_file={name!r}), then save_pretrained(NEW_FOLDER)"
    )


def _on_hub(source: str) -> Checkpoint:
    try:
        from huggingface_hub import HfApi

        revision = HfApi().model_info(source, timeout=10).sha
    except ImportError:
        raise EvalError(f"{source}: a hub id needs huggingface_hub; install 'teacherless[eval]'") from None
    except Exception as error:  # the hub's client raises its transport's own errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EvalError(
            f"{source}: no such folder, and the hub did not answer for it ({reason[:150]}); "
            "check the name and the network, or name a local folder"
        ) from error
    return Checkpoint(source=source, sha256=sha256_text(f"{source}@{revision}"), folder=None, revision=str(revision))
