"""Identity of a dump: the settings that decide its rows, without any path of this machine; and the claim on a folder.

A local corpus is identified by its last path component and by a digest of its files' names and sizes. The plan also
stores a digest of its path: a dump resumes if either is the same. Plans of earlier releases store the value of --data;
such a dump resumes under its own identity.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.errors import ShardError
from shards.format.manifest import MANIFEST_NAME
from shards.format.schema import Layout, canonical_json, read_file_metadata
from shards.format.side_files import PLAN_NAME, seal_plan
from shards.model_files.weights import config_sha256
from shards.storage.atomic import write_atomic
from shards.storage.temp_files import remove_leftovers
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.readers.sources import files_sha256, location_sha256, portable_name
from teacher_dump.engines.base import engine_version
from teacher_dump.errors import DumpError
from teacher_dump.model.teachers import LocalTeacher
from teacher_dump.tasks import task_store
from teacher_dump.tasks.row_source import RowSource

_NEWER_KEYS = ("config_sha256", "data_files")
"""Keys that plans of earlier releases lack."""


def identity_of(
    config: DumpConfig, model: LocalTeacher, layout: Layout, engine: str, source: RowSource
) -> dict[str, Any]:
    """Return everything that decides the content of a row. Another identity is another cache.

    Args:
        config: The settings, `dtype` resolved.
        model: The teacher.
        layout: Storage of the records.
        engine: vllm or transformers.
        source: Where the rows come from.
    """
    return {
        "format": layout.version,
        "layout": layout.to_dict(),
        "weights_sha256": model.teacher.weights_sha256,
        "config_sha256": config_sha256(model.folder),
        "tokenizer": model.rules.fingerprint(),
        "prefix_tokens": list(model.prefix_tokens),
        "engine": {"name": engine, "version": engine_version(engine), "dtype": config.dtype},
        "data": portable_name(config.data),
        "data_files": files_sha256(config.data),
        **{f"filter {name}": value for name, value in source.filters().items()},
        **source.settings(),
        "seed": config.seed,
        "max_tokens": config.max_tokens,
        "max_documents": config.max_documents,
        "window_tokens": config.window_tokens,
        "task_tokens": config.task_tokens,
        "chunk_tokens": config.chunk_tokens,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "quantization": config.quantization,
        **({"relations_rows": config.relations.relations_rows} if layout.relations is not None else {}),
    }


def claim(config: DumpConfig, identity: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Write the plan of a new folder, or check that an existing folder's plan is the same.

    Returns:
        The identity that applies to the folder, and its digest.

    Raises:
        DumpError: The folder holds something else; the message names what differs.
    """
    out = config.out
    path = out / PLAN_NAME
    if out.exists() and not out.is_dir():
        raise DumpError(f"--out {out}: found a file, expected a folder or nothing")
    if path.exists():
        identity = _require_same(path, config, identity)
    elif (out / MANIFEST_NAME).exists() or any(out.glob("*.arrow")):
        raise DumpError(f"--out {out}: holds a cache without {PLAN_NAME}, which can only be read; choose another --out")
    else:
        _write(path, config, identity)
    if os.access(out, os.W_OK):
        remove_leftovers(out)
    return identity, identity_digest(identity)


def planned_version(out: Path) -> int | None:
    """Return the format version of the dump in a folder, None if its plan is missing or damaged."""
    plan = _read_plan(out / PLAN_NAME) if (out / PLAN_NAME).exists() else None
    return None if plan is None else int(plan["identity"].get("format", 0)) or None


def identity_digest(identity: dict[str, Any]) -> str:
    """Return the digest of an identity, hex."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def _require_same(path: Path, config: DumpConfig, identity: dict[str, Any]) -> dict[str, Any]:
    """Compare a folder's plan with an identity, and return the identity that applies."""
    plan = _read_plan(path)
    if plan is None:
        return _replace_damaged_plan(path, config, identity)
    old = plan["identity"]
    if not any(name in old for name in _NEWER_KEYS):
        identity = {name: value for name, value in identity.items() if name not in _NEWER_KEYS}
        identity |= {"data": config.data, "filter decontaminate": config.filters.decontaminate}
    elif identity["data_files"] is None:  # the corpus is not on this machine: finished tasks can still be used
        identity = {**identity, "data_files": old.get("data_files")}
    differing = [name for name in identity if identity[name] != old.get(name)]
    if differing == ["data_files"] and not _has_results(path.parent):
        _write(path, config, identity)  # the corpus was changed before anything was made from it
    elif differing == ["data_files"] and plan.get("place") == location_sha256(config.data):
        identity = {**identity, "data_files": old["data_files"]}  # a prepared folder no longer needs its corpus
    elif differing:
        raise DumpError(
            f"--out {path.parent}: holds a cache with other settings ({_describe_differences(old, identity)}"
        )
    return identity


def _read_plan(path: Path) -> dict[str, Any] | None:
    """Return a folder's plan, None if it is damaged."""
    try:
        plan = dict(json.loads(path.read_bytes()))
        plan["identity"] = dict(plan["identity"])
        is_sound = plan["fingerprint"] == identity_digest(plan["identity"])
    except OSError as error:
        raise DumpError(f"{path}: cannot read ({error.strerror or error}); check your permissions") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return plan if is_sound else None


def _has_results(out: Path) -> bool:
    """Return whether a folder holds more of a dump than its plan."""
    return (out / MANIFEST_NAME).exists() or task_store.exists(out) or any(out.glob("*.arrow"))


def _write(path: Path, config: DumpConfig, identity: dict[str, Any]) -> None:
    plan = {"fingerprint": identity_digest(identity), "identity": identity}
    location = location_sha256(config.data)
    write_atomic(path, seal_plan(plan if location is None else {**plan, "place": location}))


def _replace_damaged_plan(path: Path, config: DumpConfig, identity: dict[str, Any]) -> dict[str, Any]:
    """Write a damaged plan again if the folder's shards are of this identity, or there are none.

    Raises:
        DumpError: A shard is of another identity.
    """
    for shard in sorted(path.parent.glob("*.arrow")):
        try:
            with pa.memory_map(str(shard)) as source:
                metadata = read_file_metadata(pa.ipc.open_file(source).schema, where=str(shard))
        except (pa.ArrowException, OSError, ShardError):
            continue  # damaged: its task is retried
        if metadata.get("fingerprint") != identity_digest(identity):
            raise DumpError(
                f"{path}: not a readable plan, and {shard.name} was made with other settings; give the settings that "
                "this folder was begun with, choose another --out, or delete that folder"
            )
    _write(path, config, identity)
    return identity


def _describe_differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return the first settings that differ, and the remedy."""
    engine = old.get("engine")
    old_flat = {**old, **{f"engine {k}": v for k, v in (engine if isinstance(engine, dict) else {}).items()}}
    new_flat = {**new, **{f"engine {k}": v for k, v in new["engine"].items()}}
    names = [name for name in new_flat if name != "engine" and new_flat[name] != old_flat.get(name)]
    if names == ["engine dtype"]:
        dtype = old_flat.get("engine dtype")
        return f"dtype {dtype} there, {new_flat['engine dtype']} here); give --dtype {dtype}, or choose another --out"
    differences = {name: f"{name} {old_flat.get(name)} there, {new_flat[name]} requested" for name in names}
    if "data_files" in differences:
        differences["data_files"] = "the files of --data have other names or sizes than when it was begun"
    return f"{'; '.join(list(differences.values())[:3])}); choose another --out"
