"""Retrieval into the prompt: the documentation that fits a problem, before its question.

The query is the problem's description or, without one, its prompt: what the model is shown, never tests or references.
With `oracle` the pages that the reference needs take the place of the hits: the ceiling of any search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import Checkpoint
from evalkit.generation.decoding import token_counter
from evalkit.request import RetrievalSettings
from evalkit.samples.base import SamplePlan
from evalkit.tasks.base import Problem
from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index import DocsIndex
from evalkit.tools.docs.recall import measure_recall
from evalkit.tools.docs.render import fitting_text

FORM_VERSION = 1
"""Version of queries and texts; another one makes earlier samples invalid."""


def settings_record(settings: RetrievalSettings) -> dict[str, Any]:
    """Return what decides the documentation of a run, for its digest and result.

    Raises:
        EvalError: The index cannot be read.
    """
    with DocsIndex.open(settings.index) as index:
        return {
            "form": FORM_VERSION,
            "top_k": settings.top_k,
            "tokens": settings.tokens,
            "oracle": settings.oracle,
        } | index.to_dict()


def add_documentation(plan: SamplePlan, settings: RetrievalSettings, checkpoint: Checkpoint) -> SamplePlan:
    """Return the plan with the documentation of each problem, and the record of the retrieval.

    Raises:
        EvalError: The index or the tokenizer cannot be read, or `oracle` is set and the index lacks a page.
    """
    record = settings_record(settings)
    count_tokens = token_counter(checkpoint)
    with DocsIndex.open(settings.index) as index:
        texts = {
            problem.task_id: fitting_text(
                _entries(problem, index, settings), budget=settings.tokens, measure=count_tokens
            )
            for problem in plan.problems
        }
        recall = measure_recall([_with_names(problem, index) for problem in plan.problems], _search(index))
    record["prompts"] = {
        "with_documentation": sum(map(bool, texts.values())),
        "without": sum(not text for text in texts.values()),
    }
    return replace(plan, documentation=texts, retrieval=record | ({"recall": recall.to_dict()} if recall else {}))


def query_of(problem: Problem) -> str:
    """Return the query for a problem."""
    return problem.description or problem.prompt


def _search(index: DocsIndex) -> Callable[[Problem, int], list[str]]:
    return lambda problem, limit: [entry.name for entry in index.search(query_of(problem), limit)]


def _entries(problem: Problem, index: DocsIndex, settings: RetrievalSettings) -> Sequence[DocsEntry]:
    if not settings.oracle:
        return index.search(query_of(problem), settings.top_k)
    entries = {page: index.entry(page) for page in problem.pages}
    if not entries:
        raise EvalError(f"--docs-oracle: {problem.task_id} names no page that it needs; only private-api does")
    missing = [page for page, entry in entries.items() if entry is None]
    if missing:
        raise EvalError(
            f"--docs-oracle: {settings.index} lacks {missing[0]}, which {problem.task_id} needs; index the library of "
            "the benchmark with 'evalkit index-docs'"
        )
    return [entry for entry in entries.values() if entry is not None]


def _with_names(problem: Problem, index: DocsIndex) -> Problem:
    """Return the problem with the index's names of its pages: an entry may have a shorter path."""
    entries = [(page, index.entry(page)) for page in problem.pages]
    return replace(problem, pages=tuple(dict.fromkeys(entry.name if entry else page for page, entry in entries)))
