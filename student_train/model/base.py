"""Identity of the weights that a run starts from; a run is never resumed with other weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

from shards.errors import ShardError
from shards.format.manifest import Teacher
from shards.model_files.weights import config_sha256, weight_files, weights_sha256
from shards.storage.cache_dirs import model_dir
from student_train.errors import StudentError
from student_train.model.sources import default_name, find_student


def base_sha256(name: str, teacher: Teacher) -> str:
    """Return the digest of the base weights of a student.

    For a packaged teacher it is the teacher's own digest. For a student without weights, which starts fresh from the
    seed, it is the digest of config.json. Else it is the digest of the weight files.

    Args:
        name: Name of the student; "" for the default.
        teacher: The teacher that made the shards.

    Raises:
        StudentError: The student is unavailable.
    """
    folder, _ = find_student(name or default_name(teacher), teacher)
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
    """Return `base_sha256`, or None where the student is unavailable, as a finished run does not need it."""
    with contextlib.suppress(StudentError):
        return base_sha256(name, teacher)
    return None
