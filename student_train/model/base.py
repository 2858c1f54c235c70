"""Identity of the weights that a run starts from: a run is never continued with others."""

from __future__ import annotations

import contextlib
from pathlib import Path

from shards.errors import ShardError
from shards.format.manifest import Teacher
from shards.model_files.weights import config_sha256, weight_files, weights_sha256
from shards.storage.cache_dirs import model_dir
from student_train.errors import StudentError
from student_train.model.loading import default_name, find


def base_sha256(name: str, teacher: Teacher) -> str:
    """Return the digest of the base weights of the student called `name`, "" for the default.

    That is the teacher's own digest for a packaged teacher, the digest of config.json for a student without weights,
    which starts fresh from the seed, and else the digest of the weight files.

    Raises:
        StudentError: Where the student is unavailable.
    """
    folder, _ = find(name or default_name(teacher), teacher)
    return folder_sha256(folder, teacher)


def folder_sha256(folder: Path, teacher: Teacher) -> str:
    """Return the digest of the base weights in a folder; see `base_sha256`."""
    if folder == model_dir(teacher.name, teacher.weights_sha256):
        return teacher.weights_sha256
    try:
        return weights_sha256(folder) if weight_files(folder) else config_sha256(folder)
    except ShardError as error:
        raise StudentError(f"student: {error}") from None


def known_base_sha256(name: str, teacher: Teacher) -> str | None:
    """Return the same, or None where the student is unavailable: of a finished run it need not be there."""
    with contextlib.suppress(StudentError):
        return base_sha256(name, teacher)
    return None
