"""Checkpoints: a transformers folder, or a hub id, and the digest that names it.

Nothing here loads weights or imports torch: what is wrong with a folder is said in a moment.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model that can be loaded, by where it is and what it is."""

    source: str
    """The folder or hub id, as given."""
    sha256: str
    """Digest over the names and digests of weights, configuration and tokenizer; of id and commit on the hub."""
    folder: Path | None
    """The local folder, or None for a hub id."""
    revision: str | None = None
    """The hub's commit."""

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "folder"}


def files_of_checkpoint(folder: Path) -> list[Path]:
    """Return the files that make the checkpoint what it is."""
    return sorted({path for pattern in _IDENTITY for path in folder.glob(pattern) if path.is_file()})


def weight_files(folder: Path) -> list[Path]:
    """Return the files that the model's weights are loaded from: those of an index, else the one file or all."""
    for kind, single in (("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")):
        indices = sorted(folder.glob(f"*.{kind}.index.json"))
        if (folder / single).is_file():
            return [folder / single]
        if indices:
            named = read_json(indices[0], what="an index of weight files")["weight_map"].values()
            return sorted({folder / name for name in named})
        if found := sorted(folder.glob(f"*.{kind}")):
            return found
    return []


def would_belong(folder: Path, path: Path) -> bool:
    """Say whether a file at `path` would be taken for a part of the checkpoint in `folder`."""
    if os.path.realpath(path.parent) != os.path.realpath(folder):
        return False
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _IDENTITY)


def find_checkpoint(source: str) -> Checkpoint:
    """Look at a folder or hub id.

    Raises:
        EvalError: it is neither, or the folder holds no complete checkpoint.
    """
    folder = Path(source)
    if folder.is_dir():
        return _local(source, folder)
    if folder.suffix.lower() == ".gguf" and folder.is_file():
        raise _is_gguf(source, folder.name)
    if folder.is_file():
        raise EvalError(f"{source}: is a file, expected a transformers folder; for samples use --samples {source}")
    if not _HUB_ID.fullmatch(source):
        raise EvalError(
            f"{source}: no such folder; expected a transformers checkpoint folder (student-train writes one) "
            "or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct"
        )
    return _on_hub(source)


def _local(source: str, folder: Path) -> Checkpoint:
    if (folder / "adapter_config.json").is_file():
        raise EvalError(
            f"{source}: holds an adapter (adapter_config.json), expected a whole model; merge it into its base "
            "model (peft: merge_and_unload) and save that"
        )
    weights = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    if not weights and (gguf := sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")):
        raise _is_gguf(source, gguf[0])
    if not (folder / "config.json").is_file():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6]) or "nothing"
        raise EvalError(
            f"{source}: is not a checkpoint: found {found}, expected config.json, a tokenizer and "
            "*.safetensors; name the folder that student-train or save_pretrained wrote"
        )
    config = read_json(folder / "config.json", what="a model's configuration")
    if not isinstance(config, dict) or "model_type" not in config:
        raise EvalError(f"{source}/config.json: names no model_type; expected a transformers configuration")
    if not weights:
        raise EvalError(f"{source}: holds no weights; expected *.safetensors beside config.json; export it again")
    kind = "safetensors" if any(folder.glob("*.safetensors*")) else "bin"  # where both lie, the former are loaded
    for index in folder.glob(f"*.{kind}.index.json"):
        content = read_json(index, what="an index of weight files")
        named = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise EvalError(f"{index}: holds no weight_map; expected tensors and their files; export the model again")
        if missing := sorted(name for name in {*named.values()} if not (folder / name).is_file()):
            raise EvalError(f"{source}: lacks {missing[0]}, which {index.name} names; copy the whole checkpoint")
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        raise EvalError(f"{source}: holds no tokenizer; expected tokenizer.json beside config.json; save it there too")
    try:
        parts = [[path.name, sha256_file(path)] for path in files_of_checkpoint(folder)]
    except OSError as error:
        raise EvalError(
            f"{error.filename}: cannot be read ({error.strerror}); expected a part of a checkpoint"
        ) from error
    digest = sha256_text(json.dumps(parts))
    return Checkpoint(source=source, sha256=digest, folder=folder)


def _is_gguf(source: str, name: str) -> EvalError:
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
