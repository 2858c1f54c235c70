"""Samples made elsewhere: JSONL, JSON arrays and EvalPlus' folders, plain or gzipped, from files and pipes.

Each sample has a `task_id`, and `completion` (which continues the prompt) or `solution` (a whole program; it
counts where both are there, as in EvalPlus). What cannot be read is refused with the file and the line.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import re
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from evalkit.errors import EvalError
from evalkit.outputs.files import sha256_file
from evalkit.samples.sample_file import Sample
from evalkit.samples.sanitize import sanitize
from evalkit.sandbox.verdict import Verdict
from evalkit.tasks.base import Benchmark

_EXPECTED = "expected a JSON object with task_id and completion or solution"
_GZIP = b"\x1f\x8b"
_WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Byte order marks of what is not UTF-8; those of UTF-32 first, since one begins like one of UTF-16."""


class Given(NamedTuple):
    """Samples made elsewhere."""

    samples: list[Sample]
    others: list[str]
    """Ids of samples of `Benchmark.others`, one for each sample; they cannot be judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where samples come from, in a form that can be read once for each benchmark."""

    label: str
    """The path as given, or `standard input`."""
    path: Path
    """A file or folder; for a pipe, a temporary copy."""
    sha256: str
    """Of the bytes of a file, or of the names and digests of a folder's programs."""

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.label, "sha256": self.sha256}


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Find the samples at `path`; `-` is standard input. What can be read only once is copied.

    Raises:
        EvalError: nothing is there, or it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            source = _source(path, stack)
        except FileNotFoundError as error:
            raise EvalError(f"{path}: no such file; expected samples as JSONL") from error
        except OSError as error:
            raise EvalError(f"{path}: cannot be read ({error.strerror or error}); expected samples as JSONL") from error
        yield source


def _source(path: Path, stack: contextlib.ExitStack) -> Source:
    if path.is_dir():
        return Source(label=str(path), path=path, sha256=_sha256_folder(path))
    if str(path) != "-" and stat.S_ISREG(path.stat().st_mode):
        return Source(label=str(path), path=path, sha256=sha256_file(path))
    if str(path) != "-":
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
    elif sys.stdin is not None:
        stream = sys.stdin.buffer
    else:
        raise EvalError("standard input is closed; expected samples as JSONL")
    if stream.isatty():
        raise EvalError(f"{path}: is a terminal; expected samples as JSONL from a pipe or a file")
    copy = stack.enter_context(tempfile.NamedTemporaryFile(prefix="evalkit-samples-"))  # noqa: SIM115  # on the stack
    shutil.copyfileobj(stream, copy)
    copy.flush()
    label = "standard input" if str(path) == "-" else str(path)
    return Source(label=label, path=Path(copy.name), sha256=sha256_file(Path(copy.name)))


def read_samples(path: Path, benchmark: Benchmark) -> Given:
    """Read the samples at `path`; see `samples_of`."""
    with open_source(path) as source:
        return samples_of(source, benchmark)


def samples_of(source: Source, benchmark: Benchmark) -> Given:
    """Read the samples of one benchmark; ids may be plain (`11`) or the benchmark's (`Mbpp/11`).

    Raises:
        EvalError: there is no sample of this benchmark, or a line is not a sample of it, nor of another form of it;
            names the line.
    """
    known = {problem.task_id: problem.task_id for problem in benchmark.problems}
    known |= {task_id: task_id for task_id in benchmark.others}
    known |= {task_id.rpartition("/")[2]: task_id for task_id in known}
    samples: list[Sample] = []
    others: list[str] = []
    counts: dict[str, int] = {}
    for where, fields in _folder_rows(source) if source.path.is_dir() else _file_rows(source):
        task_id = known.get(str(fields["task_id"]).strip())
        if task_id is None:
            raise EvalError(
                f"{where}: task_id {str(fields['task_id'])[:80]!r} is not of {benchmark.name}, whose ids look like "
                f"{benchmark.problems[0].task_id}; name the right benchmark with --tasks"
            )
        if task_id in benchmark.others:
            others.append(task_id)
            continue
        index = counts.get(task_id, 0)
        counts[task_id] = index + 1
        samples.append(Sample(task_id=task_id, index=index, **_text(fields, where)))
    if not samples:
        which = f"only samples of problems that {benchmark.name} does not have" if others else "no sample"
        raise EvalError(f"{source.label}: holds {which}; expected lines with task_id and completion or solution")
    return Given(samples, others)


def _text(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the program or completion under its name; null is as good as absent."""
    for key in ("solution", "completion"):
        if (text := fields.get(key)) is not None:
            if not isinstance(text, str):
                raise EvalError(f"{where}: {key} is {type(text).__name__}, not text; {_EXPECTED}")
            return {key: text}
    raise EvalError(f"{where}: has no completion and no solution; {_EXPECTED}")


def _file_rows(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, fields) of each sample in a file."""
    lines = _lines(source)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        text = first[1] + "".join(line for _, line in lines)
        items = _parse(text, source.label)
        if not isinstance(items, list):
            raise EvalError(f"{source.label}: is no array of samples; {_EXPECTED}")
        for number, item in enumerate(items, 1):
            yield f"{source.label} item {number}", _fields(item, f"{source.label} item {number}")
        return
    for number, line in itertools.chain([first], lines):
        if line.strip():
            where = f"{source.label} line {number}"
            yield where, _fields(_parse(line, where), where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise EvalError(f"{where}: is nested too deeply; {_EXPECTED}") from None
    except ValueError as error:
        raise EvalError(f"{where}: is not JSON ({str(error)[:200]}); {_EXPECTED}") from None


def _fields(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("task_id") is None:
        raise EvalError(f"{where}: has no task_id; {_EXPECTED}")
    return value


def _lines(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line, unpacked and decoded, without a byte order mark."""
    number = 0
    try:
        with source.path.open("rb") as file:
            packed = file.peek(2)[:2] == _GZIP
            stream: gzip.GzipFile | io.BufferedReader = gzip.GzipFile(fileobj=file) if packed else file
            wide = next((mark for mark in _WIDE if stream.peek(4).startswith(mark)), None)
            if wide is not None:
                encoding = "utf-32" if len(wide) == 4 else "utf-16"
                yield from enumerate(io.TextIOWrapper(stream, encoding=encoding), 1)
                return
            for line in stream:
                text = line.decode("utf-8-sig" if number == 0 else "utf-8")
                number += 1
                yield number, text
    except EOFError:
        raise EvalError(
            f"{source.label} line {number + 1}: is cut short, its gzip stream has no end; get it again"
        ) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise EvalError(
            f"{source.label} line {number + 1}: its gzip stream is damaged ({error}); get it again"
        ) from None
    except OSError as error:
        raise EvalError(f"{source.label} line {number + 1}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise EvalError(
            f"{source.label} line {number + 1}: is not UTF-8 text ({error.reason}); expected samples as JSONL"
        ) from error


def sanitized(sample: Sample, benchmark: Benchmark) -> Sample:
    """Return the sample with only the program in it, as a whole program; `raw` keeps what was given."""
    problem = next(one for one in benchmark.problems if one.task_id == sample.task_id)
    if not problem.entry_points:
        return sample
    name = problem.entry_points[0]
    given = sample.solution if sample.solution is not None else sample.completion or ""
    whole = sample.solution is not None or re.search(rf"^\s*(async\s+)?def\s+{re.escape(name)}\b", given, re.MULTILINE)
    text = given
    if not whole:  # a continuation of the prompt, perhaps in fences
        fenced = re.search(r"^```[^\n]*\n(.*?)(?:^```|\Z)", given, re.MULTILINE | re.DOTALL)
        text = problem.prompt + (fenced.group(1) if fenced else given)
    program = sanitize(text, name)
    return replace(sample, completion=None, solution=program, raw=given if program != given else None)


def fence_hint(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> str:
    """Return what to do where Markdown fences are what makes samples fail; empty where they are not."""
    fenced = [
        verdict
        for sample, verdict in zip(samples, verdicts, strict=True)
        if re.search(r"^\s*```", sample.solution or sample.completion or "", re.MULTILINE)
    ]
    if not fenced or any(not verdict.detail.startswith("SyntaxError") for verdict in fenced):
        return ""
    return (
        f"hint: {len(fenced)} of {len(samples)} samples hold Markdown fences (```), and none of these is Python; "
        "--sanitize judges the program in each"
    )


def _folder_rows(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file, fields) of EvalPlus' layout: a folder per task, `HumanEval_0`, with a program per sample, `0.py`."""
    for path in programs(source.path):
        try:
            solution = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise EvalError(f"{path}: is not UTF-8 text ({error.reason}); expected a program") from error
        yield str(path), {"task_id": path.parent.name.replace("_", "/"), "solution": solution}


def programs(folder: Path) -> list[Path]:
    """Return the programs of EvalPlus' layout, in the order of tasks and samples.

    Raises:
        EvalError: there is none.
    """
    paths = [path for path in folder.glob("*/*.py") if path.is_file() and not path.parent.name.startswith((".", "__"))]
    if not paths:
        raise EvalError(
            f"{folder}: holds no samples; expected a JSONL file, or a folder per task with programs (HumanEval_0/0.py)"
        )
    return sorted(paths, key=lambda path: [_natural(part) for part in path.parts[-2:]])


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts `10.py` after `9.py`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _sha256_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in programs(folder):
        digest.update(f"{path.parent.name}/{path.name}\n{sha256_file(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
