"""Identity of a dump: what decides its rows, without any path of this machine, and the claim on its folder.

A local corpus is named by its last path component and by a digest of its files' names and sizes. The plan also holds a
digest of its place: a dump goes on where either is the same. Plans of releases before that hold the value of --data;
such a dump is continued under its own identity.
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
from shards.format.schema import FORMAT_VERSION, Layout, canonical_json, read_file_metadata
from shards.format.side_files import PLAN_NAME, seal_plan
from shards.model_files.tokenizer import TokenizerRules
from shards.model_files.weights import config_sha256
from shards.storage.atomic import write_atomic
from shards.storage.temp_files import remove_leftovers
from teacher_dump.config import DumpConfig
from teacher_dump.corpus import files_sha256, place_sha256, portable, provenance
from teacher_dump.engines.base import engine_version
from teacher_dump.errors import DumpError
from teacher_dump.model.teachers import Model
from teacher_dump.tasks import task_store

_NEWER = ("config_sha256", "data_files")
"""Keys that plans of earlier releases lack."""


def identity_of(config: DumpConfig, model: Model, layout: Layout, engine: str) -> dict[str, Any]:
    """Return everything that decides what a row contains. Another identity is another cache.

    Args:
        config: The settings, `dtype` resolved.
        model: The teacher.
        layout: How records are stored.
        engine: vllm or transformers.
    """
    return {
        "format": FORMAT_VERSION,
        "layout": layout.to_dict(),
        "weights_sha256": model.teacher.weights_sha256,
        "config_sha256": config_sha256(model.folder),
        "tokenizer": TokenizerRules.load(model.folder).fingerprint(),
        "prefix_tokens": list(model.prefix_tokens),
        "engine": {"name": engine, "version": engine_version(engine), "dtype": config.dtype},
        "data": portable(config.data),
        "data_files": files_sha256(config.data),
        **{f"filter {name}": value for name, value in provenance(config.filters).items()},
        "seed": config.seed,
        "max_tokens": config.max_tokens,
        "max_documents": config.max_documents,
        "window_tokens": config.window_tokens,
        "task_tokens": config.task_tokens,
        "chunk_tokens": config.chunk_tokens,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "quantization": config.quantization,
    }


def claim(config: DumpConfig, identity: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Write the plan, or check that the folder's plan is this one; return the identity in force and its digest.

    Raises:
        DumpError: Where the folder holds something else, naming what differs.
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
    return identity, digest(identity)


def digest(identity: dict[str, Any]) -> str:
    """Return the digest of an identity, hex."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def _require_same(path: Path, config: DumpConfig, identity: dict[str, Any]) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_bytes())
        old = dict(plan["identity"])
        sound = plan["fingerprint"] == digest(old)
    except OSError as error:
        raise DumpError(f"{path}: cannot read ({error.strerror or error}); check your rights to it") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        return _write_again(path, config, identity)
    if not any(name in old for name in _NEWER):
        identity = {name: value for name, value in identity.items() if name not in _NEWER}
        identity |= {"data": config.data, "filter decontaminate": config.filters.decontaminate}
    elif identity["data_files"] is None:  # the corpus is not on this machine: what is finished can be used all the same
        identity = {**identity, "data_files": old.get("data_files")}
    differ = [name for name in identity if identity[name] != old.get(name)]
    if differ == ["data_files"] and not _is_begun(path.parent):
        _write(path, config, identity)  # a corpus that could not be read was mended: nothing was made of it yet
    elif differ == ["data_files"] and plan.get("place") == place_sha256(config.data):
        identity = {**identity, "data_files": old["data_files"]}  # a prepared folder needs its corpus no more
    elif differ:
        what = _differences(old, identity)
        raise DumpError(f"--out {path.parent}: holds a cache with other settings ({what}")
    return identity


def _is_begun(out: Path) -> bool:
    """Return whether a folder holds more of a dump than its plan."""
    return (out / MANIFEST_NAME).exists() or task_store.exists(out) or any(out.glob("*.arrow"))


def _write(path: Path, config: DumpConfig, identity: dict[str, Any]) -> None:
    plan = {"fingerprint": digest(identity), "identity": identity}
    place = place_sha256(config.data)
    write_atomic(path, seal_plan(plan if place is None else {**plan, "place": place}))


def _write_again(path: Path, config: DumpConfig, identity: dict[str, Any]) -> dict[str, Any]:
    """Write a damaged plan again where the folder's shards are of this identity, or there are none.

    Raises:
        DumpError: Where a shard is of another identity, or cannot be read.
    """
    for shard in sorted(path.parent.glob("*.arrow")):
        try:
            with pa.memory_map(str(shard)) as source:
                about = read_file_metadata(pa.ipc.open_file(source).schema, where=str(shard))
        except (pa.ArrowException, OSError, ShardError):
            continue  # damaged: its task is done again
        if about.get("fingerprint") != digest(identity):
            raise DumpError(
                f"{path}: not a readable plan, and {shard.name} was made with other settings; give the settings that "
                "this folder was begun with, choose another --out, or delete that folder"
            )
    _write(path, config, identity)
    return identity


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return the first settings that differ, and what to do about them."""
    engine = old.get("engine")
    had = {**old, **{f"engine {k}": v for k, v in (engine if isinstance(engine, dict) else {}).items()}}
    have = {**new, **{f"engine {k}": v for k, v in new["engine"].items()}}
    names = [name for name in have if name != "engine" and have[name] != had.get(name)]
    if names == ["engine dtype"]:
        there = had.get("engine dtype")
        return f"dtype {there} there, {have['engine dtype']} here); give --dtype {there}, or choose another --out"
    told = {name: f"{name} {had.get(name)} there, {have[name]} asked for" for name in names}
    if "data_files" in told:
        told["data_files"] = "the files of --data have other names or sizes than when it was begun"
    return f"{'; '.join(list(told.values())[:3])}); choose another --out"
