"""Refuse a loss that needs parts of the records which a cache does not store, as an imported one may not."""

from __future__ import annotations

import shards
from shards.reports.summary import absent_line
from student_train.choices import DIVERGENCES
from student_train.config import Config
from student_train.errors import TrainError
from student_train.losses.divergences import target_kind

_PARTS_OF_KIND = {
    "none": (),
    "top-k": (),
    "bucket": ("tail",),
    "linear": ("draws",),
    "rs-kd": ("draws",),
    "specialist": ("draws",),
}
"""Parts of the records that each kind of targets needs beside the head, as `shards.format.schema` names them."""


def require_stored_parts(config: Config, cache: shards.Cache) -> None:
    """Check that a cache stores what the divergence of a run needs.

    Args:
        config: Settings of the run.
        cache: The shards.

    Raises:
        TrainError: It does not. The message names the divergence, the missing parts, and divergences that are possible.
    """
    absent = cache.manifest.layout.absent
    missing = _missing(config.objective, config.divergence, bool(config.specialist), absent)
    if not missing:
        return
    loss = "a specialist" if config.specialist else f"divergence {config.divergence}"
    possible = [name for name in DIVERGENCES if not _missing("kd", name, False, absent)]
    raise TrainError(
        f"{loss} needs the {absent_line(missing)}, which {cache.store.root} does not store; choose --divergence "
        f"{' or '.join(possible)}{' without --specialist' if config.specialist else ''}, or --objective sft"
    )


def require_all_parts(cache: shards.Cache) -> None:
    """Check that a cache stores whole records, which learning across tokenizers needs.

    Raises:
        TrainError: It does not.
    """
    if absent := cache.manifest.layout.absent:
        raise TrainError(
            f"{cache.store.root}: a student with another tokenizer needs whole records, and this cache does not store "
            f"the {absent_line(absent)}; choose a student with the shards' tokenizer"
        )


def _missing(objective: str, divergence: str, specialist: bool, absent: tuple[str, ...]) -> list[str]:
    kind = target_kind(objective, divergence, specialist=specialist)
    return [part for part in _PARTS_OF_KIND[kind] if part in absent]
