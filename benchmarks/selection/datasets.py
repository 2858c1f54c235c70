"""Sample files of the experiment: DATA/MODEL/TASK/samples.jsonl, tests.jsonl and greedy.jsonl, also gzipped.

TASK is a name that `--tasks` takes. The samples of `SCORED` are for the tables; those of `DEVELOPMENT` are for the
choice of `combined`. Files that are missing are written by the public commands, if a checkpoint is named.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from evalkit.outputs.files import sha256_file
from evalkit.samples.given_file import open_given, rows

SCORED = ("humaneval", "mbpp")
DEVELOPMENT = ("mbpp:train", "mbpp:validation")
_SAMPLING = ("--temperature", "0.8", "--top-p", "0.95")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Samples of one model for one benchmark."""

    model: str
    task: str
    folder: Path

    def file(self, name: str) -> Path | None:
        """Return the file `NAME.jsonl` or `NAME.jsonl.gz`; None if there is none."""
        paths = [self.folder / f"{name}{suffix}" for suffix in (".jsonl", ".jsonl.gz")]
        return next((path for path in paths if path.exists()), None)

    @property
    def samples(self) -> Path:
        """The samples."""
        path = self.file("samples")
        assert path is not None, self.folder
        return path

    def scratch(self, scratch: Path) -> Path:
        """Return the folder of this dataset's intermediate results."""
        return scratch / self.model / self.task

    def evidence(self, scratch: Path) -> Path:
        """Return the evidence file. The development tasks share one, because the verifier learns from all of them."""
        name = "development" if self.task in DEVELOPMENT else self.task
        return scratch / self.model / f"{name}.evidence.arrow"

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each file, shortened."""
        files = {name: self.file(name) for name in ("samples", "tests", "greedy")}
        return {name: sha256_file(path)[:16] for name, path in files.items() if path is not None}


def find(data: Path) -> list[Dataset]:
    """Return the datasets that have samples, by model, the development tasks first."""
    found = []
    for model in sorted(path for path in data.iterdir() if path.is_dir()):
        for task in (*DEVELOPMENT, *SCORED):
            dataset = Dataset(model=model.name, task=task, folder=model / task)
            if dataset.file("samples") is not None:
                found.append(dataset)
    return found


def thinned(dataset: Dataset, scratch: Path, part: int, *, num_samples: int = 0) -> Dataset:
    """Return a dataset with a fixed random part of the problems: one in `part`, by the digest of their number.

    Args:
        dataset: All problems.
        scratch: Its files are written here, once.
        part: 1 keeps all problems.
        num_samples: Samples that each problem keeps, its first ones; 0 for all.
    """
    if part == 1 and not num_samples:
        return dataset
    folder = dataset.scratch(scratch) / (f"part-{part}" + (f"-of-{num_samples}" if num_samples else ""))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("samples", "tests", "greedy"):
        path, target = dataset.file(name), folder / f"{name}.jsonl"
        if path is None or target.exists():
            continue
        unfinished = folder / f"{name}.part"
        kept: Counter[str] = Counter()
        with open_given(path) as given, unfinished.open("w", encoding="utf-8") as file:
            for _, fields in rows(given):
                number = str(fields["task_id"]).rpartition("/")[2]
                is_enough = name == "samples" and num_samples and kept[number] == num_samples
                if (
                    not is_enough
                    and int.from_bytes(hashlib.blake2b(number.encode(), digest_size=8).digest()) % part == 0
                ):
                    kept[number] += 1
                    file.write(json.dumps(fields) + "\n")
        unfinished.rename(target)
    return Dataset(model=dataset.model, task=dataset.task, folder=folder)


def verifier_of(datasets: list[Dataset], dataset: Dataset) -> str:
    """Return the model on whose samples of mbpp:train a dataset's verifier is trained.

    That is its own model, or the first one that has such samples; "" if no model has any.
    """
    models = [d.model for d in datasets if d.task == DEVELOPMENT[0] and d.file("tests") is not None]
    return dataset.model if dataset.model in models else models[0] if models else ""


def train_verifier(datasets: list[Dataset], model: str, scratch: Path, more: tuple[str, ...]) -> Path:
    """Return the folder of a model's verifier, trained by `evalkit train-verifier` on its development tasks.

    Args:
        datasets: All datasets.
        model: The model; it has samples and tests of mbpp:train.
        scratch: Holds the verifier.
        more: Further options of the command.
    """
    used = learned_from(datasets, model)
    return train_on(used, scratch / model / "verifier", used[0].evidence(scratch), more)


def learned_from(datasets: list[Dataset], model: str) -> list[Dataset]:
    """Return the development tasks of a model that have tests."""
    return [d for d in datasets if d.model == model and d.task in DEVELOPMENT and d.file("tests") is not None]


def train_on(used: list[Dataset], folder: Path, evidence: Path, more: tuple[str, ...]) -> Path:
    """Run `evalkit train-verifier` on the samples of `used`, unless `folder` holds its verifier; return `folder`."""
    if not (folder / "report.json").exists():
        samples = [str(dataset.samples) for dataset in used]
        tests = [text for dataset in used for text in ("--tests", str(dataset.file("tests")))]
        places = ("--evidence", str(evidence), "--out", str(folder))
        _evalkit("train-verifier", *samples, *tests, "--tasks", DEVELOPMENT[0], *places, *more)
    return folder


def generate(data: Path, model: str, checkpoint: str, num: int, more: tuple[str, ...]) -> None:
    """Write the missing files of one model by `evalkit score` and `evalkit write-tests`.

    Args:
        data: Folder of all samples.
        model: Name of the model's folder.
        checkpoint: What the commands take.
        num: Samples and texts of tests per problem.
        more: Further options of both commands, such as `--engine vllm`.
    """
    for task in (*SCORED, *DEVELOPMENT):
        folder = data / model / task
        dataset = Dataset(model=model, task=task, folder=folder)
        common = [checkpoint, "--tasks", task, *more]
        count = ["--n", str(num), *_SAMPLING]
        if dataset.file("samples") is None:
            _evalkit("score", *common, *count, "--out", str(folder / "sampled"), "--no-html")
            (folder / "sampled" / "score.samples.jsonl").rename(folder / "samples.jsonl")
        if dataset.file("tests") is None:
            _evalkit("write-tests", *common, *count, "--out", str(folder / "part" / "tests.jsonl"))
            (folder / "part" / "tests.jsonl").rename(folder / "tests.jsonl")
        if dataset.file("greedy") is None and task in SCORED:
            _evalkit("score", *common, "--n", "1", "--temperature", "0", "--out", str(folder / "greedy"), "--no-html")
            (folder / "greedy" / "score.samples.jsonl").rename(folder / "greedy.jsonl")


def _evalkit(*arguments: str) -> None:
    print("evalkit", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "evalkit", *arguments], check=True)
