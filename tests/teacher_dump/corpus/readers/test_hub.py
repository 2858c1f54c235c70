"""Tests of hub data sets: streaming at a pinned revision, names, and errors that name the remedy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.corpus.readers import sources
from teacher_dump.corpus.readers.hub import is_hub_id, pin_revision
from teacher_dump.errors import DumpError


def test_a_hub_data_set_is_streamed_at_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    folder = tmp_path / "data" / "python"
    folder.mkdir(parents=True)
    rows = [
        {"content": f"{name} = {n}\n" * 3, "max_stars_repo_licenses": licence, "max_stars_repo_path": name}
        for n, (name, licence) in enumerate([("a", ["MIT"]), ("b", ["GPL-3.0"]), ("c", [])])
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part.parquet")
    asked: list[tuple[Any, ...]] = []
    real = datasets.load_dataset

    def load(repo: str, config: str | None, **options: Any) -> Any:
        asked.append((repo, options["revision"], options["data_dir"], options["streaming"]))
        return real(str(tmp_path), split=options["split"], data_dir=options["data_dir"], streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = Corpus(data="hub:org/name@abc123:data/python", seed=0, filters=FilterSettings(decontaminate="none"))
    assert [(d.path, d.licence, d.source) for d in corpus] == [("a", "MIT", "org/name")]
    assert asked == [("org/name", "abc123", "data/python", True)]
    assert corpus.counts["dropped: licence not allowed"] == corpus.counts["dropped: licence not stated"] == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("Dataset 'bigcode/the-stack-dedup' is a gated dataset on the Hub.", "accept the terms .* `hf auth login`"),
        ("Dataset doesn't exist on the Hub or cannot be accessed.", "check the name and the revision"),
        (ConnectionError("no route"), "the hub cannot be reached"),
    ],
)
def test_an_unavailable_hub_data_set_is_an_error_with_the_remedy(
    error: str | Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def load(*_: Any, **__: Any) -> Iterator[Any]:
        raise error if isinstance(error, Exception) else datasets.exceptions.DatasetNotFoundError(error)

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DumpError, match=message):
        next(iter(Corpus(data="bigcode/the-stack-dedup@17cad72:data/python", seed=0)))


def test_a_hub_data_set_without_a_revision_is_pinned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Info:
        sha = "f00d"

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_: Info)
    assert pin_revision("hub:org/name:folder") == pin_revision("org/name:folder") == "org/name@f00d:folder"
    assert pin_revision("org/name@1:folder") == "org/name@1:folder"
    assert pin_revision("stdlib") == "stdlib"


def test_names_of_data_sets_differ_from_missing_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in ("org/name", "org/name@rev:a/b", "hub:name"):
        assert is_hub_id(data)
    for data in ("./nowhere", "/no/where", "a/b/c", "nowhere"):
        assert not is_hub_id(data)
        with pytest.raises(DumpError, match="found no such file"):
            list(itertools.islice(sources.read(data), 1))


def test_names_of_data_sets_differ_from_existing_paths(tmp_path: Path) -> None:
    assert is_hub_id("org/name")
    assert not is_hub_id("stdlib")
    assert not is_hub_id(str(tmp_path))
