"""How does a benchmark's file get here when the user names none? From where its makers keep it, once.

MBPP comes from the hub at a pinned revision, as Parquet; its rows are written out as the release writes them, to
the byte. EvalPlus' files come from its releases: the hub has them only as text of tests. Either way the bytes must
have the pinned sha256, else nothing is kept. Files lie in the user's cache, `~/.cache/teacherless/evalkit/data`.
"""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.cache_dirs import default_folder
from evalkit.errors import EvalError
from evalkit.outputs.files import sha256_file
from evalkit.tasks.data_files import HubRows

if TYPE_CHECKING:
    from evalkit.tasks.data_files import DataFile
from evalkit.tasks.data_files import DataFile, checked

if TYPE_CHECKING:
    from evalkit.tasks.data_files import DataFile

_TIMEOUT_S = 30.0


def fetch(file: DataFile) -> Path:
    """Return the file from the cache, or bring it there.

    Raises:
        EvalError: there is no network, it is forbidden (HF_HUB_OFFLINE), or what came is not the pinned file.
    """
    path = default_folder() / "data" / file.names[0]
    if path.is_file() and sha256_file(path) == file.sha256:
        return path
    how = f"get {file.names[-1]} from {file.url} ({file.licence}) and name its folder with --data-dir"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise EvalError(f"{file.title} is not here, and HF_HUB_OFFLINE forbids to fetch it: {how}")
    try:
        content = _rows(file.hub) if file.hub is not None else _released(file.link)
    except ImportError as error:
        raise EvalError(f"{file.title} is not here; fetching it needs {error.name}: install it, or {how}") from error
    except Exception as error:  # the hub's client raises its own errors and those of its transport
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise EvalError(f"{file.title} is not here and could not be fetched ({reason}): {how}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(content)
        if (found := sha256_file(Path(stream.name))) != file.sha256:
            os.unlink(stream.name)
            raise EvalError(
                f"what was fetched as {file.title} has sha256 {found[:12]}.., not {file.sha256[:12]}..: {how}"
            )
        os.replace(stream.name, path)
    except OSError as error:
        raise EvalError(f"{path}: cannot be written ({error.strerror}); {how}") from error
    return path


def _released(link: str) -> bytes:
    with urllib.request.urlopen(link, timeout=_TIMEOUT_S) as answer:
        content: bytes = answer.read()
        return content


def _rows(source: HubRows) -> bytes:
    from huggingface_hub import hf_hub_download
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    for split in source.splits:
        part = hf_hub_download(
            source.repository,
            f"{source.folder}/{split}-00000-of-00001.parquet",
            repo_type="dataset",
            revision=source.revision,
            etag_timeout=_TIMEOUT_S,
        )
        rows += parquet.read_table(part).to_pylist()
    rows.sort(key=lambda row: int(row["task_id"]))
    ordered = [{key: row[key] for key in source.keys} for row in rows]
    if source.one_per_line:
        return "".join(json.dumps(row) + "\n" for row in ordered).encode()
    return json.dumps(ordered).encode()


def locate(file: DataFile, data_dir: Path | None) -> Path:
    """Find the file in the data folder and check its digest; without a folder, fetch it.

    Raises:
        EvalError: the file is not there or cannot be fetched, or its bytes are not the pinned ones.
    """
    if data_dir is None:
        return fetch(file)
    for folder in (data_dir, data_dir / "mbpp", data_dir / "evalplus"):
        for name in file.names:
            if (folder / name).is_file():
                return checked(folder / name, file.sha256, title=file.title)
    raise EvalError(f"--data-dir {data_dir}: holds no {file.names[0]}; get it from {file.url} ({file.licence})")
