"""Find a benchmark file in the data folder, or download it once into the user's cache.

MBPP comes from the hub at a pinned revision, as Parquet; its rows are written in the release's layout, equal to the
byte. EvalPlus files come from their releases, because the hub lacks their inputs. A download whose sha256 is not the
pinned one is discarded. The cache is `~/.cache/teacherless/evalkit/data`.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from pathlib import Path
from typing import Any

from evalkit.cache_dirs import cache_dir
from evalkit.errors import EvalError
from evalkit.outputs.files import replace_file, sha256_file
from evalkit.tasks.data_files import DataFile, HubRows, candidate_paths, verified

_TIMEOUT_S = 30.0


def locate(file: DataFile, data_dir: Path | None) -> Path:
    """Return the path of the file in the data folder; without a folder, download it.

    Raises:
        EvalError: The file is missing, cannot be downloaded, or does not have the pinned digest.
    """
    if data_dir is None:
        return fetch(file)
    for path in candidate_paths(file.names, data_dir):
        if path.is_file():
            return verified(path, file.sha256, title=file.title)
    raise EvalError(f"--data-dir {data_dir}: holds no {file.names[0]}; get it from {file.url} ({file.licence})")


def fetch(file: DataFile) -> Path:
    """Return the file from the cache; download it first if necessary.

    Raises:
        EvalError: The network is unavailable or forbidden (HF_HUB_OFFLINE), or the download has another digest.
    """
    path = cache_dir("data") / file.names[0]
    if path.is_file() and sha256_file(path) == file.sha256:
        return path
    advice = f"get {file.names[-1]} from {file.url} ({file.licence}) and name its folder with --data-dir"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise EvalError(f"{file.title} is not cached, and HF_HUB_OFFLINE forbids its download: {advice}")
    try:
        content = _from_hub(file.hub) if file.hub is not None else _from_release(file.link)
    except ImportError as error:
        raise EvalError(
            f"{file.title} is not cached; its download needs {error.name}: install it, or {advice}"
        ) from error
    except Exception as error:  # the hub's client raises its own errors and those of its transport
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise EvalError(f"{file.title} is not cached and could not be downloaded ({reason}): {advice}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise EvalError(f"the download of {file.title} has sha256 {digest[:12]}.., not {file.sha256[:12]}..: {advice}")
    try:
        replace_file(path, content)
    except OSError as error:
        raise EvalError(f"{path}: cannot be written ({error.strerror}); {advice}") from error
    return path


def _from_release(link: str) -> bytes:
    with urllib.request.urlopen(link, timeout=_TIMEOUT_S) as response:
        content: bytes = response.read()
        return content


def _from_hub(source: HubRows) -> bytes:
    """Download the rows of all splits and return them in the release's layout."""
    from huggingface_hub import hf_hub_download
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    for split in source.splits:
        parquet_path = hf_hub_download(
            source.repository,
            f"{source.folder}/{split}-00000-of-00001.parquet",
            repo_type="dataset",
            revision=source.revision,
            etag_timeout=_TIMEOUT_S,
        )
        rows += parquet.read_table(parquet_path).to_pylist()
    rows.sort(key=lambda row: int(row["task_id"]))
    ordered = [{key: row[key] for key in source.keys} for row in rows]
    if source.one_per_line:
        return "".join(json.dumps(row) + "\n" for row in ordered).encode()
    return json.dumps(ordered).encode()
