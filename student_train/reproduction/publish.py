"""Publish a finished run to a folder or URL: model and card, record, held-out scores, and where its shards are.

Files are sent first and the index last, so nobody finds half a run. Publishing again continues: a file that is there
with the right size and digest is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import shards
from shards.errors import IncompleteCacheError, ShardError
from shards.format.manifest import FileEntry, Teacher
from shards.format.side_files import CARD_NAME, is_sealed_card
from shards.model_files.weights import weight_files
from shards.storage.atomic import file_sha256
from shards.storage.store import Store, open_store
from student_train.config import Config, from_dict
from student_train.errors import TrainError
from student_train.model.base import folder_digests
from student_train.model.sources import base_folder, names_a_folder, tokenizer_files
from student_train.outputs.weight_digest import exported_sha256
from student_train.reproduction.model_card import CardFacts, model_card
from student_train.reproduction.publication import (
    BASE_FOLDER,
    PUBLICATION_NAME,
    Publication,
    PublishedCache,
    read_publication,
    resolve,
)
from student_train.reproduction.recorded_run import RecordedRun
from student_train.reproduction.verdict import measured_noise

_LOGS = ("metrics.jsonl", "held_out.jsonl", "held_out_curve.jsonl", "completions.json", "report.html")
_LAST = ("generation_config.json", "config.json", "run.json")
"""Files that make a folder look like a model or a run: sent after everything else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishRequest:
    """What to publish, and where."""

    folder: Path
    """Folder of the finished run."""
    url: str
    """Path or URL of the published run."""
    cache_urls: tuple[str, ...] = ()
    """Where others find the caches; needed where the run was trained from a folder."""
    second_run: Path | None = None
    """Another run, whose distance becomes the stated noise; None leaves what the record states."""


def publish_run(request: PublishRequest, *, log: Callable[[str], None]) -> Publication:
    """Publish a run, and return its index.

    Args:
        request: What, and where.
        log: Prints a line for people.

    Raises:
        TrainError: The run is not finished, its weights have changed, nothing says where its shards are, the folder
            that it began with is not there, or another run is at the address.
        ShardError: A place cannot be reached or written.
    """
    folder, target = request.folder, open_store(request.url)
    run = RecordedRun.read(folder / "run.json")
    _require_unchanged(folder, run)
    caches, teachers = _find_caches(request, run, target)
    paths = dict(_files(folder, from_dict(run.record["config"]), run, teachers[0]))
    entries = tuple(
        FileEntry(name=name, bytes=path.stat().st_size, sha256=file_sha256(path)) for name, path in paths.items()
    )
    noise = None if request.second_run is None else _noise(run, request.second_run)
    publication = Publication(caches=caches, files=entries, noise=noise)
    _require_free(target, publication)
    sent = 0
    with target.uploads() as upload:
        for entry in entries:
            if not target.holds(entry.name, size=entry.bytes, sha256=entry.sha256):
                upload(paths[entry.name], entry.name)
                sent += 1
    address = "" if target.is_local else target.root
    _put_card(target, model_card(CardFacts(run=run, caches=caches, teachers=teachers, address=address)), log)
    target.put(PUBLICATION_NAME, publication.to_bytes())
    log(
        f"{target.root}: published, sent {sent} files, {len(entries) - sent} were there; repeat it with: student-train "
        f"--repeat {target.root} --out FOLDER"
    )
    return publication


def _require_unchanged(folder: Path, run: RecordedRun) -> None:
    """Check that the weights in a folder are those that its record names."""
    if not run.exported:
        raise TrainError(
            f"{folder}: found a record of an earlier release, without digests of weights; repeat the run with this "
            f"one: student-train --repeat {folder / 'run.json'} --out FOLDER"
        )
    found = exported_sha256(folder)
    if found != run.exported:
        raise TrainError(
            f"{folder}: found weights with digest {found[:12]}, expected {run.exported[:12]} of run.json; the model "
            "was changed after its run: restore it, or repeat the run"
        )


def _find_caches(
    request: PublishRequest, run: RecordedRun, target: Store
) -> tuple[tuple[PublishedCache, ...], tuple[Teacher, ...]]:
    """Return the caches of a run at addresses where others find them, and their teachers."""
    places = [source.path for source in from_dict(run.record["config"]).sources]
    urls = request.cache_urls or tuple(place for place in places if not open_store(place).is_local)
    at: dict[str, PublishedCache] = {}
    teachers: dict[str, Teacher] = {}
    for url in urls:
        if not target.is_local and Path(url).is_absolute():
            raise TrainError(
                f"cache-url {url}: found a folder of this machine, expected an address that readers of {target.root} "
                "reach; publish the cache with 'logit-shards publish'"
            )
        cache = _open_published(url, resolve(url, run=target.root), places)
        teachers[cache.manifest_sha256] = cache.manifest.teacher
        at[cache.manifest_sha256] = PublishedCache(url=url, manifest_sha256=cache.manifest_sha256)
    missing = [digest for digest in run.manifests if digest not in at]
    if missing:
        found = f"found {', '.join(urls)} with manifest {', '.join(d[:12] for d in at)}" if at else "nothing says where"
        raise TrainError(
            f"{request.folder}: trained on {', '.join(places)} with manifest {missing[0][:12]}, and {found}; expected "
            "an address of that very cache: publish it with 'logit-shards publish', then add --cache-url URL"
        )
    return tuple(at[digest] for digest in run.manifests), tuple(teachers[digest] for digest in run.manifests)


def _open_published(url: str, place: str, sources: Sequence[str]) -> shards.Cache:
    try:
        return shards.open(place)
    except IncompleteCacheError:
        raise TrainError(
            f"cache-url {url}: found no cache at {place}, expected that of the run for its readers; "
            f"publish it first: logit-shards publish {sources[0]} {place}"
        ) from None


def _files(folder: Path, config: Config, run: RecordedRun, teacher: Teacher) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the files to publish, in the order in which they are sent."""
    weights = [*weight_files(folder), *folder.glob("*.safetensors.index.json")]
    for path in (*weights, *tokenizer_files(folder)):
        yield path.name, path
    base = _base_folder(folder, config, run, teacher)
    if base is not None:
        digests, student = folder_digests(base, teacher), run.record["student"]
        if (digests.weights_sha256, digests.config_sha256) != (student["weights_sha256"], student["config_sha256"]):
            raise TrainError(
                f"{base}: found another model than the one that the run in {folder} began with "
                f"({student['weights_sha256'][:12]}); restore it, so that others can repeat the run"
            )
        yield from ((f"{BASE_FOLDER}/{path.name}", path) for path in _model_files(base))
    quantised = folder / config.quantize
    if config.quantize and quantised.is_dir():
        yield from ((f"{config.quantize}/{path.name}", path) for path in sorted(quantised.iterdir()) if path.is_file())
    for name in (*_LOGS, *_LAST):
        if (folder / name).is_file():
            yield name, folder / name


def _base_folder(folder: Path, config: Config, run: RecordedRun, teacher: Teacher) -> Path | None:
    """Return the folder of the model that the student starts from; None where the hub or a package has it.

    A record of an earlier release does not say which of both `owner/name` was.
    """
    base, student = base_folder(config.student, teacher), run.record["student"]
    from_folder = student.get("from_folder", base is not None or names_a_folder(config.student))
    if from_folder and base is None:
        name = teacher.repo or teacher.name if config.student in ("", "teacher") else config.student
        raise TrainError(
            f"{folder}: found no folder {name} here, expected the model that the run began with "
            f"({student['weights_sha256'][:12]}), as others need it to repeat the run; publish from the directory in "
            "which the run was started, or bring that folder back"
        )
    return base if from_folder else None


def _model_files(base: Path) -> list[Path]:
    weights = weight_files(base)
    if any(path.suffix != ".safetensors" for path in weights):
        raise TrainError(
            f"{base}: found weights that are no safetensors, which nobody should load from a stranger; convert them"
        )
    names = ("config.json", "generation_config.json")
    others = [base / name for name in names if (base / name).is_file()]
    return [*weights, *base.glob("*.safetensors.index.json"), *tokenizer_files(base), *others]


def _put_card(target: Store, text: str, log: Callable[[str], None]) -> None:
    """Write the model card, unless a person has written or edited the one that is there."""
    if target.exists(CARD_NAME) and not is_sealed_card(target.read(CARD_NAME)):
        log(f"{target.root}/{CARD_NAME}: kept, because somebody wrote or edited it; delete it to get the model card")
        return
    target.put(CARD_NAME, text.encode())


def _noise(run: RecordedRun, second: Path) -> dict[str, object]:
    other = RecordedRun.read(second / "run.json")
    noise = measured_noise(run, other)
    if noise["margins"]:
        return noise
    if run.rows and run.rows.keys() == other.rows.keys():
        raise TrainError(
            f"second-run {second}: found one held-out document, expected at least two to measure noise; leave "
            "--second-run out, or train both runs with a larger --held-out"
        )
    raise TrainError(
        f"second-run {second}: found other held-out rows than in {run.name}, expected the same ones; repeat the "
        "run with another --seed"
    )


def _require_free(target: Store, publication: Publication) -> None:
    """Check that no other run is at the address."""
    if not target.exists(PUBLICATION_NAME):
        return
    try:
        existing = read_publication(target)
    except (TrainError, ShardError):
        return  # damaged: it is written again
    if existing.entry("run.json") != publication.entry("run.json"):
        raise TrainError(
            f"{target.root}: found another published run, expected nothing or this one; choose another URL"
        )
