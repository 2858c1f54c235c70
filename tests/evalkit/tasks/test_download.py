"""Tests of downloads without a network: equal to the pinned file to the byte, cached, else refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.tasks import download, evalplus, mbpp, registry

SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def serve_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, rows: list[dict]) -> list[tuple[str, str]]:
    """Stand in for the hub with `rows` as Parquet in its four splits; return what is asked of it."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    asked: list[tuple[str, str]] = []

    def answer(repository: str, name: str, *, repo_type: str, revision: str, etag_timeout: float) -> str:
        asked.append((name, revision))
        low, high = SPLITS[name.split("/")[1].split("-")[0]]
        part = [dict(sorted(row.items())) for row in rows if low <= row["task_id"] <= high]
        parquet.write_table(pyarrow.Table.from_pylist(part[::-1]), folder / "part.parquet")
        return str(folder / "part.parquet")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", answer)
    return asked


@pytest.mark.parametrize(("name", "number"), [("mbpp", 974), ("mbpp-sanitized", 427)])
def test_mbpp_from_the_hub_is_the_release_to_the_byte_and_fetched_once(
    name: str, number: int, online, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = mbpp.MBPP if name == "mbpp" else mbpp.MBPP_SANITIZED
    text = (shared_data / "mbpp" / file.names[0]).read_text()
    rows = [json.loads(line) for line in text.splitlines()] if name == "mbpp" else json.loads(text)
    asked = serve_hub(monkeypatch, tmp_path, rows)
    assert len(registry.load(name).problems) == number
    assert {revision for _, revision in asked} == {file.hub.revision}
    assert len(registry.load(name).problems) == number
    assert len(asked) == 4
    assert (tmp_path / "cache" / "teacherless" / "evalkit" / "data" / file.names[0]).read_text() == text


def test_other_rows_than_the_pinned_ones_are_refused_and_not_kept(online, tmp_path: Path, monkeypatch):
    rows = [dict.fromkeys(mbpp.MBPP.hub.keys, "x") | {"task_id": number} for number in (2, 11, 511, 601)]
    serve_hub(monkeypatch, tmp_path, rows)
    with pytest.raises(EvalError, match=r"the download of MBPP has sha256 .*--data-dir"):
        registry.load("mbpp")
    assert list((tmp_path / "cache" / "teacherless" / "evalkit").rglob("*")) == []


def test_a_released_file_is_fetched_by_its_link(online, tmp_path: Path):
    (tmp_path / "release").write_bytes(b"content")
    file = replace(
        evalplus.MBPP_PLUS,
        link=(tmp_path / "release").as_uri(),
        sha256="ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
    )
    path = download.fetch(file)
    assert path.read_bytes() == b"content"
    (tmp_path / "release").unlink()
    assert download.fetch(file) == path
    path.write_bytes(b"spoilt")
    with pytest.raises(EvalError, match=r"MBPP\+ v0.2.0 is not cached and could not be downloaded .*--data-dir"):
        download.fetch(file)


@pytest.mark.parametrize("name", ["mbpp", "mbpp-sanitized", "humaneval+", "mbpp+"])
def test_offline_says_how_to_get_it(name: str):
    with pytest.raises(
        EvalError, match=r"HF_HUB_OFFLINE forbids its download: get .* from https://github.com/.*--data-dir"
    ):
        registry.load(name)
