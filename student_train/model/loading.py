"""Where does the student come from? A short name, a hub id, a folder, or the shards' own teacher, made shallower.

The student's weights are float32 while it trains. Its tokenizer may be the shards' or another (see
`fit.py`). Nothing is written but to the hub's own cache, and there only what was fetched.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import ShardError, first_line
from shards.format.manifest import Teacher
from shards.model_files.weights import weights_sha256
from shards.storage.cache_dirs import model_dir
from student_train.errors import StudentError
from student_train.model.head import require_projection
from student_train.model.model_folder import load_model, require_ids
from student_train.model.probe import require_runs
from student_train.model.tokenizer_match import tokenizer_difference
from student_train.pruning.layer_choice import Choose, LayerChoice, choose_evenly
from student_train.pruning.shorten import shorten

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubModel:
    """A pinned model on the hub."""

    repo: str
    """owner/name."""
    revision: str
    """Commit; "" takes the newest."""
    licence: str = ""
    """SPDX identifier, for people to read."""


NAMES = {
    "phi-2": HubModel(repo="microsoft/phi-2", revision="ef382358ec9e382308935a992d908de099b64c23", licence="MIT"),
    "tinyllama": HubModel(
        repo="TinyLlama/TinyLlama_v1.1",
        revision="ff3c701f2424c7625fdefb9dd470f45ef18b02d6",
        licence="Apache-2.0",
    ),
}


@dataclass(kw_only=True, slots=True)
class Student:
    """A model ready to train."""

    model: Any
    """transformers causal language model, float32, on the CPU."""
    source: str
    """Where it came from, for the record: names and revisions, no machine's paths for packaged models."""
    layers: int | None
    """Layers that were kept; None if all."""
    layer_choice: LayerChoice | None = None
    """Which layers were kept, and why; None if all."""
    tokenizer_dir: Path
    """Folder with the tokenizer's files that go into the output."""
    vocab_size: int
    """Ids that its projection has."""
    max_row_tokens: int
    """Longest row that it can read."""
    other_tokenizer: str | None = None
    """How its tokenizer differs from the shards'; None where it is the same."""
    adapted: Any = None
    """What merges the adapters in `model`, if it has any."""


def default_name(teacher: Teacher) -> str:
    """Return the student that is taken where none is named: Phi-2 for a Code Llama, else the teacher itself."""
    told = f"{teacher.name} {teacher.repo}".lower().replace("-", "").replace("_", "").replace(" ", "")
    return "phi-2" if "codellama" in told else "teacher"


def load(
    name: str,
    *,
    layers: int,
    teacher: Teacher,
    shards_tokenizer: Path,
    seed: int,
    choose: Choose = choose_evenly,
    on_teacher: Callable[[Any], None] = lambda model: None,
) -> Student:
    """Return the student called `name` ("" for the default) with `layers` layers; 0 is as in `Config`.

    A folder or repository with a configuration but no weights starts fresh, from `seed`. `choose` says which layers
    stay where some are dropped. `on_teacher` is called with the teacher's uncut model where that is the student.

    Raises:
        StudentError: The student is unavailable, or does not fit the shards.
    """
    name = name or default_name(teacher)
    folder, source = find(name, teacher)
    own = any(entry.name == "tokenizer.json" for entry in tokenizer_files(folder))
    differs = tokenizer_difference(name, folder, shards_tokenizer) if own else None
    if not own and name != "teacher" and _has_weights(folder):
        raise StudentError(
            f"student {name}: found weights without a tokenizer.json in {folder}, expected one to compare with the "
            "shards'; save the tokenizer beside the weights"
        )
    model = load_model(name, folder, seed=seed)
    require_projection(model)
    require_runs(model)
    if name != "teacher":
        require_ids(name, folder if own else shards_tokenizer, vocab_size=model.get_output_embeddings().weight.shape[0])
    if name == "teacher":
        on_teacher(model)
    choice = None
    if keep := _layers_to_keep(name, model, layers):
        unfit = "it starts fresh" if not _has_weights(folder) else "its tokenizer is not the shards'" if differs else ""
        choice = choose(model, keep, unfit=unfit)
        model = shorten(model, choice.kept)
    return Student(
        model=model,
        source=source,
        layers=None if choice is None else len(choice.kept),
        layer_choice=choice,
        tokenizer_dir=folder if own and name != "teacher" else shards_tokenizer,
        vocab_size=model.get_output_embeddings().weight.shape[0],
        other_tokenizer=differs,
        max_row_tokens=context_of(model),
    )


def context_of(model: Any) -> int:
    """Return the most tokens that `model` reads."""
    config = model.config.get_text_config()
    named = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    return next((int(value) for value in named if value), 2**31)


def find(name: str, teacher: Teacher) -> tuple[Path, str]:
    """Return the folder of the student called `name`, fetched if need be, and its name for the record."""
    if name == "teacher":
        return _find_teacher(teacher)
    if name in NAMES:
        known = NAMES[name]
        return _fetch(name, known.repo, known.revision), f"{known.repo}@{known.revision}"
    if Path(name).is_dir():
        return Path(name), name
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        repo, _, revision = name.partition("@")
        return _fetch(name, repo, revision), name
    raise StudentError(
        f"student {name}: found no such folder; expected a folder, a hub id (owner/name), or one of teacher, "
        f"{', '.join(NAMES)}"
    )


def _find_teacher(teacher: Teacher) -> tuple[Path, str]:
    packaged = model_dir(teacher.name, teacher.weights_sha256)
    source = f"{teacher.repo}@{teacher.revision}" if teacher.revision else teacher.repo or teacher.name
    if (packaged / "config.json").is_file():
        return packaged, source
    for place in (teacher.name, teacher.repo):
        if place and Path(place).is_dir() and _has_weights(Path(place)):
            return _require_teacher(Path(place), teacher), source
    if _HUB_ID.fullmatch(teacher.repo):
        return _require_teacher(_fetch("teacher", teacher.repo, teacher.revision), teacher), source
    raise StudentError(
        f"student teacher: found no {teacher.name} at {packaged}, expected the folder that teacher-dump unpacks; run "
        f"teacher-dump --model {teacher.name} on this machine, or name another --student"
    )


def _require_teacher(folder: Path, teacher: Teacher) -> Path:
    """Return `folder`. Raises: StudentError where its weights are not those that made the records."""
    try:
        found = weights_sha256(folder)
    except ShardError as error:
        raise StudentError(f"student teacher: {error}") from None
    if found != teacher.weights_sha256:
        raise StudentError(
            f"student teacher: found weights with digest {found[:12]} in {folder}, but the shards were made by "
            f"{teacher.weights_sha256[:12]}; name the teacher's own folder with --student, or train another student"
        )
    return folder


def _fetch(name: str, repo: str, revision: str) -> Path:
    """Return the local folder of a hub repository. Raises: StudentError if it is neither here nor reachable."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import HfHubHTTPError, logging

    wanted = {"revision": revision or None, "allow_patterns": list(_WANTED)}
    quiet = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        folder = Path(snapshot_download(repo, local_files_only=True, **wanted))
        if _has_weights(folder):
            return folder
    except OSError:
        pass  # not here yet
    finally:
        logging.set_verbosity(quiet)
    at = f"{repo}@{revision}" if revision else repo
    help_ = (
        "fetch it on a machine that reaches the hub ('hf download'), then name its folder with --student; a gated "
        "repository needs 'hf auth login'"
    )
    # Without a name server the hub's client retries for half a minute; ask once first.
    host = constants.ENDPOINT.removeprefix("https://").removeprefix("http://").split("/")[0].split(":")[0]
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        raise StudentError(
            f"student {name}: found neither {at} in the hub's cache nor a way to {host}; expected one; {help_}"
        ) from None
    try:
        return Path(snapshot_download(repo, **wanted))
    except (OSError, HfHubHTTPError) as error:
        raise StudentError(f"student {name}: could not fetch {at} ({first_line(error)}); {help_}") from None


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _layers_to_keep(name: str, model: Any, layers: int) -> int:
    """Return how many layers stay of those that `model` has; 0 if all do. `layers` is as in `Config`."""
    have = int(model.config.get_text_config().num_hidden_layers)
    # A student as deep as its teacher would have nothing to learn.
    layers = layers or (max(2, (have + 1) // 2) if name == "teacher" else 0)
    if layers > have:
        raise StudentError(
            f"student {name}: found {have} layers, expected at least the {layers} of --student-layers; ask for fewer"
        )
    return 0 if layers == have else layers


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder that make up its tokenizer."""
    names = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.name.startswith(names))
