"""Filter by benchmark contamination: normalised n-gram overlap with prompts, solutions and tests.

Each prompt, solution and test is a set of n-grams of one of the views of `ngrams`. A document contains it if it holds
at least THRESHOLD of that set:

    prompt     words, n = 8                        matches rewrapped text, and text in a comment or a string
    solution   code, n = 8; renamed, n = 20        matches reformatted code without comments, and renamed code
    test       code, n = 8; renamed, n = 12        the same; tests hold many literals, so a shorter n is specific

A solution is searched alone and together with its signature, so that a one-line body is recognised by its function.
A text with too few tokens for an n-gram is not searched in that view: `return x + y` identifies nothing.
`docs/corpus.md` has the measurement behind n and THRESHOLD (`benchmarks/decontamination.py`). Not detected: another
algorithm for the same task, another programming language, a translated prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teacher_dump.corpus.document import Drop
from teacher_dump.corpus.filters.base import Candidate
from teacher_dump.corpus.filters.benchmark_texts import BenchmarkTexts, ProblemTexts
from teacher_dump.corpus.filters.ngrams import Hashes, code_tokens, ngrams, renamed_ngrams, word_tokens

THRESHOLD = 0.5
"""Share of the n-grams of a prompt, solution or test from which a document contains it."""
_SLOT_BITS = 22
"""log2 of the slots of the table that rules out most n-grams."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A normalisation of texts, and the parts of a problem that are searched in it."""

    name: str
    tokenize: Callable[[str], Hashes]
    grams: Callable[[Hashes, int], Hashes]
    n: int
    parts: tuple[str, ...]


VIEWS = (
    View(name="words", tokenize=word_tokens, grams=ngrams, n=8, parts=("prompt",)),
    View(name="code", tokenize=code_tokens, grams=ngrams, n=8, parts=("solution", "function", "test")),
    View(name="renamed", tokenize=code_tokens, grams=renamed_ngrams, n=20, parts=("solution", "function")),
    View(name="renamed", tokenize=code_tokens, grams=renamed_ngrams, n=12, parts=("test",)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """The part of a benchmark problem that a document overlaps with."""

    problem: str
    """Benchmark and id, such as humaneval/0."""
    part: str
    """prompt, solution, function (a solution with its signature) or test."""
    view: str
    share: float
    """Share of the part's n-grams."""

    def __str__(self) -> str:
        return f"{self.part} of {self.problem}: {self.share:.0%} of its {self.view} n-grams"


class ContaminationIndex:
    """Index of the n-grams of benchmarks. Memory: about 40 bytes per n-gram (HumanEval and MBPP: 10 MB)."""

    def __init__(self, benchmarks: Iterable[BenchmarkTexts]) -> None:
        self.benchmarks = tuple(benchmarks)
        self._tables = [_Table(view, self.benchmarks) for view in VIEWS if self.benchmarks]

    def __call__(self, candidate: Candidate) -> Drop | None:
        """Drop a document that contains a part of a benchmark."""
        if not self.benchmarks:
            return None
        overlap = self.find(candidate.document.text, candidate.tokens)
        return None if overlap is None else Drop(f"contains {overlap.problem.partition('/')[0]}", str(overlap))

    def find(self, text: str, tokens: Hashes) -> Overlap | None:
        """Return the largest overlap of a text that reaches THRESHOLD, or None.

        Args:
            text: The document.
            tokens: Its `ngrams.code_tokens`.
        """
        nearest = self.nearest(text, tokens)
        return nearest if nearest is not None and nearest.share >= THRESHOLD else None

    def nearest(self, text: str, tokens: Hashes) -> Overlap | None:
        """Return the largest overlap of a text, None where it has no n-gram of any benchmark."""
        tokens_by_view: dict[Callable[[str], Hashes], Hashes] = {code_tokens: tokens}
        overlaps = []
        for table in self._tables:
            tokenize = table.view.tokenize
            if tokenize not in tokens_by_view:
                tokens_by_view[tokenize] = tokenize(text)
            if (overlap := table.largest_overlap(tokens_by_view[tokenize])) is not None:
                overlaps.append(overlap)
        return max(overlaps, key=lambda overlap: overlap.share, default=None)

    def too_short(self) -> dict[str, int]:
        """Return the number of prompts, solutions and tests with too few tokens for every view."""
        indexed = {part for table in self._tables for part in table.parts}
        counts: dict[str, int] = {}
        for benchmark in self.benchmarks:
            for problem in benchmark.problems:
                for part in ("prompt", "solution", "test"):
                    names = {(problem.name, part), *([(problem.name, "function")] if part == "solution" else [])}
                    if _text_of(problem, part) and not names & indexed:
                        counts[part] = counts.get(part, 0) + 1
        return counts


class _Table:
    """The n-grams of one view, each with the parts that hold it."""

    def __init__(self, view: View, benchmarks: Iterable[BenchmarkTexts]) -> None:
        self.view = view
        self.parts: list[tuple[str, str]] = []
        sets: list[Hashes] = []
        for benchmark in benchmarks:
            for problem in benchmark.problems:
                for part in view.parts:
                    grams = np.unique(view.grams(view.tokenize(_text_of(problem, part)), view.n))
                    if len(grams):
                        self.parts.append((problem.name, part))
                        sets.append(grams)
        self._sizes = np.array([len(s) for s in sets], np.int64)
        grams = np.concatenate([*sets, np.zeros(0, np.uint64)])
        order = np.argsort(grams, kind="stable")
        self._owners = np.repeat(np.arange(len(sets)), self._sizes)[order]
        self._grams = grams[order]
        # Most n-grams of most documents are in no benchmark: a lookup in this table rules them out.
        self._maybe = np.zeros(1 << _SLOT_BITS, bool)
        self._maybe[_slot(self._grams)] = True

    def largest_overlap(self, tokens: Hashes) -> Overlap | None:
        grams = self.view.grams(tokens, self.view.n)
        grams = np.unique(grams[self._maybe[_slot(grams)]])
        begin = np.searchsorted(self._grams, grams, "left")
        counts = np.searchsorted(self._grams, grams, "right") - begin
        if not counts.any():
            return None
        places = np.repeat(begin - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        shares = np.bincount(self._owners[places], minlength=len(self.parts)) / self._sizes
        largest = int(shares.argmax())
        problem, part = self.parts[largest]
        return Overlap(problem=problem, part=part, view=self.view.name, share=float(shares[largest]))


def _slot(grams: Hashes) -> npt.NDArray[np.intp]:
    return (grams >> np.uint64(64 - _SLOT_BITS)).astype(np.intp)


def _text_of(problem: ProblemTexts, part: str) -> str:
    if part == "function":
        return f"{problem.prompt}\n{problem.solution}" if problem.solution and "def " in problem.prompt else ""
    text: str = getattr(problem, part)
    return text
