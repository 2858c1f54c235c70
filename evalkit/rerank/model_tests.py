"""Read the tests that a model wrote, and extract their asserts by CodeT's rule.

A test file has a row per generated text with `task_id` and `completion`: the raw text that follows a prompt ending in
`assert `. The rule is that of the authors' code (microsoft/CodeT, src/postprocess.py and src/agreement.py; arXiv
2207.10397): split at `assert `, keep the parts that name the function, cut each at the stop strings, keep those that
compile in a block, and take the first five of each text.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.samples.given_file import GivenFile, open_given
from evalkit.samples.listed import single_rows
from evalkit.tasks.base import Benchmark, Problem

TESTS_PER_TEXT = 5
"""Valid asserts of one text that count."""

_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
_EXPECTED = "expected a JSON object with task_id and completion"


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenTest:
    """One distinct assert that a model wrote for a problem."""

    source: str
    """The assert statement."""
    times_written: int
    """How often it is among the first valid asserts of the generated texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenTests:
    """The tests of a benchmark's problems."""

    by_task: Mapping[str, tuple[WrittenTest, ...]]
    """Distinct tests of each problem of the benchmark, in the order in which they were first written."""
    num_texts: int
    """Generated texts of the benchmark's problems."""
    num_repeated: int
    """Texts that are equal to an earlier text of their problem. They count again, as in CodeT."""
    num_empty: int
    """Texts without any character other than whitespace."""
    num_unknown: int
    """Rows with an id that the benchmark does not have. They are left out."""

    @property
    def without_tests(self) -> tuple[str, ...]:
        """Ids of the problems without any valid test."""
        return tuple(task_id for task_id, tests in self.by_task.items() if not tests)

    @property
    def num_tests(self) -> int:
        """Number of distinct tests."""
        return sum(len(tests) for tests in self.by_task.values())

    def of(self, problems: Sequence[Problem]) -> WrittenTests:
        """Return the tests of some problems; the counts of texts stay those of all."""
        return replace(self, by_task={problem.task_id: self.by_task[problem.task_id] for problem in problems})

    def notes(self, benchmark: str) -> list[str]:
        """Return a line for each peculiarity of the texts of `benchmark`."""
        lines = []
        if self.num_unknown:
            lines.append(f"{self.num_unknown} rows are of problems that {benchmark} does not have: left out")
        if self.num_empty:
            lines.append(f"{self.num_empty} of {self.num_texts} texts are empty: they hold no test")
        if self.num_repeated:
            lines.append(
                f"{self.num_repeated} of {self.num_texts} texts repeat an earlier text of their problem: their tests "
                "count again"
            )
        if missing := self.without_tests:
            names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            lines.append(
                f"{len(missing)} of {len(self.by_task)} {benchmark} problems have no valid test ({names}): methods "
                "that need tests pick at random there"
            )
        return lines


def read_tests(
    path: Path, benchmark: Benchmark, *, note: Callable[[str], None], problems: Sequence[Problem] | None = None
) -> WrittenTests:
    """Read the test file at `path`; `-` is standard input.

    Args:
        path: JSONL, plain or gzipped.
        benchmark: The benchmark of the tests. Ids may be its own (`Mbpp/11`) or bare numbers (`11`).
        note: Receives a line about rows that are left out and problems without tests.
        problems: The problems whose tests are returned; all if None.

    Raises:
        EvalError: A row is not a text of tests, or no row is of this benchmark.
    """
    with open_given(path) as given:
        tests = tests_of(given, benchmark).of(benchmark.problems if problems is None else problems)
    for line in tests.notes(benchmark.name):
        note(f"{given.label}: {line}")
    return tests


def tests_of(given: GivenFile, benchmark: Benchmark) -> WrittenTests:
    """Read the tests of one benchmark; see `read_tests`."""
    texts, unknown = texts_of(given, benchmark, what="tests")
    return written_tests(texts, benchmark.problems, num_unknown=len(unknown))


def texts_of(given: GivenFile, benchmark: Benchmark, *, what: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return the texts that a model wrote for each problem, and the unknown ids of the other rows.

    Args:
        given: The file.
        benchmark: The benchmark of its rows.
        what: What the texts are, for errors.

    Raises:
        EvalError: A row is not a text, or no row is of this benchmark.
    """
    texts: dict[str, list[str]] = {problem.task_id: [] for problem in benchmark.problems}
    known = {task_id.rpartition("/")[2]: task_id for task_id in texts} | {task_id: task_id for task_id in texts}
    unknown: list[str] = []
    for place, fields in single_rows(given, benchmark):
        text = fields.get("completion")
        if not isinstance(text, str):
            found = "no completion" if text is None else f"a completion that is {type(text).__name__}, not text"
            raise EvalError(f"{place}: has {found}; {_EXPECTED}")
        task_id = known.get(str(fields["task_id"]).strip())
        if task_id is None:
            unknown.append(str(fields["task_id"])[:80])
        else:
            texts[task_id].append(text)
    if not any(texts.values()):
        found = f"only ids such as {unknown[0]!r}" if unknown else "no row"
        raise EvalError(
            f"{given.label}: holds {found}, expected {what} of {benchmark.name}, whose ids look like "
            f"{benchmark.problems[0].task_id}; name the right benchmark with --tasks"
        )
    return texts, unknown


def written_tests(
    texts: Mapping[str, Sequence[str]], problems: Sequence[Problem], *, num_unknown: int = 0
) -> WrittenTests:
    """Return the tests in generated texts.

    Args:
        texts: Texts of each problem, each of which follows `assert `, by task id.
        problems: The problems.
        num_unknown: Texts of other problems, which were left out.
    """
    return WrittenTests(
        by_task={problem.task_id: count_tests(texts[problem.task_id], problem.entry_points) for problem in problems},
        num_texts=sum(len(written) for written in texts.values()),
        num_repeated=sum(len(written) - len(set(written)) for written in texts.values()),
        num_empty=sum(not text.strip() for written in texts.values() for text in written),
        num_unknown=num_unknown,
    )


def count_tests(texts: Iterable[str], entry_points: tuple[str, ...]) -> tuple[WrittenTest, ...]:
    """Return the distinct tests in the texts of one problem, by first occurrence.

    Args:
        texts: Generated texts, each of which follows `assert `.
        entry_points: Names of the functions under test.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(extract_asserts(text, entry_points)[:TESTS_PER_TEXT])
    return tuple(WrittenTest(source=source, times_written=times) for source, times in counts.items())


def extract_asserts(text: str, entry_points: tuple[str, ...]) -> list[str]:
    """Return the valid asserts in one text that follows `assert `, in order.

    A part counts if it holds the name of an entry point anywhere, as in CodeT.
    """
    parts = f"assert {text}".split("assert ")
    named = [part for part in parts if any(name in part for name in entry_points)]
    sources = [_cut(f"assert {part}".strip()) for part in named]
    return [source for source in sources if _is_valid(source)]


def _cut(source: str) -> str:
    for stop in _STOPS:
        source = source.partition(stop)[0]
    return source.strip()


def in_block(source: str) -> str:
    """Return statements that run `source` indented, as CodeT does: some text is valid only in this form."""
    indented = source.replace("\n", "\n    ")
    return f"if True:\n    {indented}\n"


def _is_valid(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `assert (f(1), 2)` and invalid escapes
            compile(in_block(source), "<test>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return "assert" in source
