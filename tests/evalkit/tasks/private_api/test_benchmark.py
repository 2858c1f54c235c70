"""Tests of builds on disk: complete, reproducible, repaired in the cache, never executed from a folder of a user."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from evalkit.cli import main
from evalkit.errors import EvalError
from evalkit.tasks import registry
from evalkit.tasks.private_api import benchmark, library
from evalkit.tasks.private_api.benchmark import PrivateApiBuild, build_private_api


@pytest.fixture(autouse=True)
def _no_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are run by the tests of the library; they take most of the time of a build."""
    monkeypatch.setattr(library, "_check_examples", lambda folder, sources, renaming: None)


@pytest.mark.slow
def test_a_build_in_the_cache_is_used_again_and_repaired(
    default_build: PrivateApiBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = registry.load("private-api")
    assert first.sha256 == default_build.sha256
    assert first.library is not None
    assert first.library.is_relative_to(tmp_path)
    written = first.library.stat().st_mtime_ns
    assert registry.load("private-api") == first
    assert first.library.stat().st_mtime_ns == written
    damaged = first.library / "__init__.py"
    damaged.write_text("import os\n")
    assert registry.load("private-api") == first
    assert damaged.read_text() != "import os\n"


@pytest.mark.slow
def test_a_build_that_another_process_wrote_first_is_used(
    default_build: PrivateApiBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "build"

    def write(new: Path, sources: library.LibrarySources, *, seed: int) -> None:
        """Stand for a build during which the other process ends."""
        shutil.copytree(default_build.folder, new)
        shutil.copytree(default_build.folder, folder)

    monkeypatch.setattr(benchmark, "_write", write)
    build = build_private_api(folder, seed=0, replace=True)
    assert build.sha256 == default_build.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["build"], "nothing is left beside it"


@pytest.mark.slow
def test_another_seed_gives_other_names_and_is_loaded_by_its_manifest(
    default_build: PrivateApiBuild, tmp_path: Path
) -> None:
    build = build_private_api(tmp_path / "lib", seed=7)
    assert build.package.name != default_build.package.name
    loaded = registry.load("private-api", data_dir=tmp_path / "lib")
    assert (loaded.sha256, loaded.problems) == (build.sha256, build.problems)
    assert "seed 7" in loaded.source
    ids = {problem.task_id for problem in loaded.problems}
    assert not ids & {problem.task_id for problem in default_build.problems}, "samples are not used for other names"
    assert loaded.library is not None
    assert not loaded.library.is_relative_to(tmp_path / "lib"), "code of a user's folder is not executed"


@pytest.mark.slow
def test_a_changed_build_and_a_foreign_manifest_are_refused(tmp_path: Path) -> None:
    build = build_private_api(tmp_path / "lib", seed=7)
    path = build.folder / benchmark.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "0" * 64}))
    with pytest.raises(EvalError, match="is not what seed 7 gives here"):
        registry.load("private-api", data_dir=build.folder)
    path.write_text("[]")
    with pytest.raises(EvalError, match="is not the manifest of a build"):
        registry.load("private-api", data_dir=build.folder)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="exists; name a new folder"):
        build_private_api(tmp_path, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(EvalError, match="cannot be written"):
        build_private_api(tmp_path / "file" / "lib", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_samples_are_scored_with_the_library_at_hand(default_build: PrivateApiBuild, tmp_path: Path) -> None:
    """The references, one in three without the library: the JSON and the page count what used it."""
    samples, result = tmp_path / "samples.jsonl", tmp_path / "score.json"
    rows = [
        {"task_id": problem.task_id, "solution": problem.reference if index % 3 else problem.prompt + "    pass\n"}
        for index, problem in enumerate(default_build.problems)
    ]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["score", "--samples", str(samples), "--tasks", "private-api", "--json", str(result), "--workers", "2"]
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 0, outcome.output
    values = json.loads(result.read_text())
    right = sum(bool(index % 3) for index in range(len(rows)))
    assert values["scores"]["private-api"]["pass@1"] == pytest.approx(right / len(rows))
    assert values["library"]["private-api"] == {
        "name": default_build.package.name,
        "samples": len(rows),
        "used": right,
        "passed": right,
        "passed_and_used": right,
    }
    assert values["data"]["private-api"]["sha256"] == default_build.sha256
    assert "seed 0" in values["data"]["private-api"]["source"]
    assert f"{right} of the {right} samples that pass use the library" in (tmp_path / "score.html").read_text()
