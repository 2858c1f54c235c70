"""The benchmark `private-api`: built once per seed into the cache, or into a folder of the user's.

A build is a folder: the renamed package, its LICENSE, `problems.jsonl` for readers, and `private_api.json` with the
seed and the digest. It appears complete or not at all. Code is executed from the cache only: of a folder that
`--data-dir` names, the seed and the digest are read, and the build of this seed in the cache must have this digest.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evalkit.cache_dirs import cache_dir
from evalkit.errors import EvalError
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.private_api import library
from evalkit.tasks.private_api.problems import PROBLEMS_FILE, read_templates

MANIFEST = "private_api.json"
PRIVATE_API_NAMES = (MANIFEST,)
DEFAULT_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateApiBuild:
    """A build on disk."""

    folder: Path
    package: Path
    """Folder of the renamed package."""
    seed: int
    sha256: str
    """Digest of the package's files and of the problems."""
    problems: tuple[Problem, ...]

    def benchmark(self) -> Benchmark:
        """Return the benchmark."""
        source = f"{library.PACKAGE} {library.VERSION}, renamed with seed {self.seed}"
        return Benchmark(
            name="private-api", problems=self.problems, source=source, sha256=self.sha256, library=self.package
        )


def load_private_api(data_dir: Path | None) -> Benchmark:
    """Return the benchmark with the seed of the build in `data_dir`, else with the default seed.

    Raises:
        EvalError: The package that is renamed is missing or not the pinned one, or the build in `data_dir` differs from
            what this version builds.
    """
    manifest = None if data_dir is None else data_dir / MANIFEST
    if manifest is None or not manifest.is_file():
        return cached_build(DEFAULT_SEED).benchmark()
    try:
        values = json.loads(manifest.read_bytes())
        seed, digest = int(values["seed"]), str(values["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvalError(f"{manifest}: is not the manifest of a build; run 'evalkit build-private-api' again") from error
    build = cached_build(seed)
    if build.sha256 != digest:
        raise EvalError(
            f"{manifest}: sha256 {digest[:12]}.. is not what seed {seed} gives here ({build.sha256[:12]}..); run "
            "'evalkit build-private-api' again"
        )
    return build.benchmark()


def cached_build(seed: int) -> PrivateApiBuild:
    """Return the build of a seed from the cache; build it first if it is absent or damaged.

    Raises:
        EvalError: See `load_private_api`; or the cache cannot be written.
    """
    folder = cache_dir("private-api") / f"{_recipe()[:16]}-{seed}"
    if (build := _read(folder)) is not None:
        return build
    return build_private_api(folder, seed=seed, replace=True)


def build_private_api(folder: Path, *, seed: int, replace: bool = False) -> PrivateApiBuild:
    """Build the benchmark into a new folder.

    Args:
        folder: The folder, which must not exist.
        seed: Selects the new names.
        replace: Replace a damaged build; one that another process has just written is used.

    Raises:
        EvalError: The folder exists or cannot be written, or the package that is renamed is missing, is not the pinned
            one, or does not work with these names.
    """
    if folder.exists() and not replace:
        raise EvalError(f"{folder}: exists; name a new folder")
    sources = library.read_sources()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            new = Path(temporary) / "new"
            _write(new, sources, seed=seed)
            if replace and folder.exists() and _read(folder) is None:
                shutil.rmtree(folder)
            try:
                os.rename(new, folder)
            except OSError:  # another process was faster
                if not replace or _read(folder) is None:
                    raise
    except OSError as error:
        raise EvalError(f"{folder}: cannot be written ({error.strerror}); name a folder that can") from error
    build = _read(folder)
    assert build is not None
    return build


def _recipe() -> str:
    """Return the digest of all that decides a build apart from its seed."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), PROBLEMS_FILE]
    return library.digest_of([library.SOURCES_SHA256, *(path.read_text(encoding="utf-8") for path in files)])


def _write(folder: Path, sources: library.LibrarySources, *, seed: int) -> None:
    """Write a build.

    Raises:
        EvalError: The library does not work with the new names.
    """
    renaming = library.plan_renaming(sources, seed=seed)
    package = library.write_library(folder, sources, renaming)
    trees = {name: ast.parse(source) for name, source in sources.modules.items()}
    digest = _digest(package)
    prefix = "PrivateApi" if seed == DEFAULT_SEED else f"PrivateApi-{seed}"  # samples of other names are others
    problems = [
        template.problem(f"{prefix}/{number}", renaming, pages=template.pages(library.PACKAGE, trees), digest=digest)
        for number, template in enumerate(read_templates())
    ]
    rows = "".join(json.dumps(asdict(problem)) + "\n" for problem in problems)
    (folder / "problems.jsonl").write_text(rows, encoding="utf-8")
    manifest = {
        "package": package.name,
        "seed": seed,
        "source": f"{library.PACKAGE} {library.VERSION}",
        "sha256": library.digest_of([digest, rows]),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _digest(package: Path) -> str:
    """Return the digest of the package's files."""
    files = sorted(package.glob("*.py"))
    return library.digest_of([text for path in files for text in (path.name, path.read_text(encoding="utf-8"))])


def _read(folder: Path) -> PrivateApiBuild | None:
    """Return the build in a folder; None if there is none, or if it is damaged."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        rows = (folder / "problems.jsonl").read_text(encoding="utf-8")
        package = folder / manifest["package"]
        if library.digest_of([_digest(package), rows]) != manifest["sha256"]:
            return None
        problems = tuple(_problem(json.loads(row)) for row in rows.splitlines())
        return PrivateApiBuild(
            folder=folder, package=package, seed=manifest["seed"], sha256=manifest["sha256"], problems=problems
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _problem(values: dict[str, Any]) -> Problem:
    """Return a problem from its row."""
    fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
    return Problem(**fields)
