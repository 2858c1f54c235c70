"""Does a document contain a benchmark's prompt, solution or test? Normalised n-gram overlap.

Each prompt, solution and test is a set of n-grams of one of the views of `lexer`. A document contains it where it
holds at least THRESHOLD of that set:

    prompt     words, n = 8                        wrapped anew, moved into a comment or a string
    solution   code, n = 8; renamed, n = 20        formatted anew, without comments; with other names
    test       code, n = 8; renamed, n = 12        the same; tests are full of literals, so a shorter n tells them apart

A solution counts alone and together with its signature, so that a one-line body is known by its function. What has
too few tokens for an n-gram is not looked for that way: nobody can tell `return x + y` from everybody's.
`docs/corpus.md` has the measurement that n and THRESHOLD rest on (`benchmarks/decontamination.py`). Not caught:
another algorithm for the same task, another programming language, a translated prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teacher_dump.corpus.filters.benchmark_texts import Benchmark, Problem
from teacher_dump.corpus.filters.ngrams import Hashes, code, ngrams, renamed_ngrams, words

THRESHOLD = 0.5
"""Share of the n-grams of a prompt, solution or test that makes a document contain it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A way to look at a text, and what is looked for that way."""

    name: str
    stream: Callable[[str], Hashes]
    grams: Callable[[Hashes, int], Hashes]
    n: int
    parts: tuple[str, ...]


VIEWS = (
    View(name="words", stream=words, grams=ngrams, n=8, parts=("prompt",)),
    View(name="code", stream=code, grams=ngrams, n=8, parts=("solution", "function", "test")),
    View(name="renamed", stream=code, grams=renamed_ngrams, n=20, parts=("solution", "function")),
    View(name="renamed", stream=code, grams=renamed_ngrams, n=12, parts=("test",)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a document contains."""

    problem: str
    part: str
    """prompt, solution, function (a solution with its signature) or test."""
    view: str
    share: float
    """Of the part's n-grams."""

    def __str__(self) -> str:
        return f"{self.part} of {self.problem}: {self.share:.0%} of its {self.view} n-grams"


class Contamination:
    """An index of benchmarks. Memory: about 40 bytes per n-gram (HumanEval and MBPP: 10 MB)."""

    def __init__(self, benchmarks: Iterable[Benchmark]) -> None:
        self.benchmarks = tuple(benchmarks)
        self._tables = [_Table(view, self.benchmarks) for view in VIEWS if self.benchmarks]

    def find(self, text: str, tokens: Hashes) -> Finding | None:
        """Return what the text contains, None where it contains nothing. `tokens` are its `lexer.code`."""
        nearest = self.nearest(text, tokens)
        return nearest if nearest is not None and nearest.share >= THRESHOLD else None

    def nearest(self, text: str, tokens: Hashes) -> Finding | None:
        """Return what the text has the largest share of, None where it has no n-gram of any benchmark."""
        streams = {code: tokens}
        findings = []
        for table in self._tables:
            stream = table.view.stream
            if stream not in streams:
                streams[stream] = stream(text)
            if (finding := table.best(streams[stream])) is not None:
                findings.append(finding)
        return max(findings, key=lambda f: f.share, default=None)

    def too_short(self) -> dict[str, int]:
        """Return how many prompts, solutions and tests have too few tokens to be looked for in any view."""
        held = {part for table in self._tables for part in table.parts}
        counts: dict[str, int] = {}
        for benchmark in self.benchmarks:
            for problem in benchmark.problems:
                for part in ("prompt", "solution", "test"):
                    known = {(problem.name, part), *([(problem.name, "function")] if part == "solution" else [])}
                    if _text_of(problem, part) and not known & held:
                        counts[part] = counts.get(part, 0) + 1
        return counts


class _Table:
    """The n-grams of one view, each with the parts that have it."""

    def __init__(self, view: View, benchmarks: Iterable[Benchmark]) -> None:
        self.view = view
        self.parts: list[tuple[str, str]] = []
        sets: list[Hashes] = []
        for benchmark in benchmarks:
            for problem in benchmark.problems:
                for part in view.parts:
                    grams = np.unique(view.grams(view.stream(_text_of(problem, part)), view.n))
                    if len(grams):
                        self.parts.append((problem.name, part))
                        sets.append(grams)
        self._sizes = np.array([len(s) for s in sets], np.int64)
        grams = np.concatenate([*sets, np.zeros(0, np.uint64)])
        order = np.argsort(grams, kind="stable")
        self._owners = np.repeat(np.arange(len(sets)), self._sizes)[order]
        self._grams = grams[order]
        # Most n-grams of most documents are in no benchmark: one look at a table of bits says so.
        self._maybe = np.zeros(1 << _BITS, bool)
        self._maybe[_slot(self._grams)] = True

    def best(self, tokens: Hashes) -> Finding | None:
        grams = self.view.grams(tokens, self.view.n)
        grams = np.unique(grams[self._maybe[_slot(grams)]])
        begin = np.searchsorted(self._grams, grams, "left")
        counts = np.searchsorted(self._grams, grams, "right") - begin
        if not counts.any():
            return None
        places = np.repeat(begin - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        shares = np.bincount(self._owners[places], minlength=len(self.parts)) / self._sizes
        most = int(shares.argmax())
        problem, part = self.parts[most]
        return Finding(problem=problem, part=part, view=self.view.name, share=float(shares[most]))


_BITS = 22


def _slot(grams: Hashes) -> npt.NDArray[np.intp]:
    return (grams >> np.uint64(64 - _BITS)).astype(np.intp)


def _text_of(problem: Problem, part: str) -> str:
    if part == "function":
        return f"{problem.prompt}\n{problem.solution}" if problem.solution and "def " in problem.prompt else ""
    text: str = getattr(problem, part)
    return text
