"""Digests of the model that a run starts from. A run is never resumed with another one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from shards.errors import ShardError
from shards.format.manifest import Teacher
from shards.model_files.weights import config_sha256, weight_files, weights_sha256
from shards.storage.cache_dirs import model_dir
from student_train.errors import StudentError
from student_train.model.sources import default_name, find_student


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseDigests:
    """What identifies a base model: the same weights compute something else under another configuration."""

    weights_sha256: str
    """Digest of the weight files. For a packaged teacher it is the teacher's own; for a student without weights, which
    starts fresh from the seed, it is that of config.json."""
    config_sha256: str
    """Digest of config.json, without the keys that change no output."""


def base_digests(name: str, teacher: Teacher) -> BaseDigests:
    """Return the digests of a student's base model.

    Args:
        name: Name of the student; "" for the default.
        teacher: The teacher that made the shards.

    Raises:
        StudentError: The student is unavailable.
    """
    folder, _ = find_student(name or default_name(teacher), teacher)
    return folder_digests(folder, teacher)


def folder_digests(folder: Path, teacher: Teacher) -> BaseDigests:
    """Return the digests of the model in a folder; see `base_digests`."""
    try:
        config = config_sha256(folder)
        if folder == model_dir(teacher.name, teacher.weights_sha256):
            weights = teacher.weights_sha256
        else:
            weights = weights_sha256(folder) if weight_files(folder) else config
    except ShardError as error:
        raise StudentError(f"student: {error}") from None
    return BaseDigests(weights_sha256=weights, config_sha256=config)


def known_base_digests(name: str, teacher: Teacher) -> BaseDigests | None:
    """Return `base_digests`, or None where the student is unavailable, as a finished run does not need it."""
    with contextlib.suppress(StudentError):
        return base_digests(name, teacher)
    return None
