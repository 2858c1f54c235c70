"""Evidence and rankings of a dataset through `evalkit rerank`, and the tables of one dataset.

All figures are pass@k in percent of problems, with 95% bootstrap intervals over problems. Nothing in this module
executes a program: `rerank` does, once, and stores the outputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.selection.datasets import Dataset
from benchmarks.selection.restrict import with_samples, with_tests
from evalkit.console import ScoreProgress
from evalkit.outputs.rerank_result import evidence_dict, methods_with_visible_tests
from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.model_tests import count_tests
from evalkit.rerank.registry import ORACLE, RANKERS, VERIFIER, Ranker
from evalkit.rerank.run import RerankOutcome, RerankRequest, rerank
from evalkit.samples.given_file import open_given, rows
from evalkit.scoring.ranked_problems import RankedProblem
from evalkit.scoring.stats import Estimate, difference, interval

PICKS = (1, 2, 5, 10)
SIZES = (5, 10, 20, 50)
"""Numbers of samples, and of texts of tests, in the ablations."""
DRAWS = 5
"""Random subsets of the samples or texts of a problem; their mean counts."""
COMPARED = ("random", "majority", "majority-valid", "max-pass", "codet", "srank", "combined")
"""Methods in the ablations of sizes."""
SOURCES = (("tests", "examples", "mutation"), ("tests",), ("examples",), ("mutation",))
"""Sources of inputs in their ablation. All of them come first, so that what is new is executed at once."""
BY_OUTPUT = ("majority", "majority-valid", "srank", "combined")
"""Methods in the ablation of inputs: those that compare outputs."""

Rates = dict[str, dict[str, list[float]]]
"""Method -> metric -> one value for each problem."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Folders of a run, and the verifier of the model."""

    scratch: Path
    data_dir: Path | None
    verifier: Path | None = None


def ranked(
    dataset: Dataset, place: Place, *, sources: tuple[str, ...] = ("tests",), methods: tuple[str, ...] = ()
) -> RerankOutcome:
    """Return the outcome of `evalkit rerank`; evidence is kept in the scratch folder.

    Args:
        dataset: Samples and tests.
        place: Folders.
        sources: Sources of inputs.
        methods: Names of methods; none for all.
    """
    request = RerankRequest(
        samples=(dataset.samples,),
        tests=dataset.file("tests"),
        task=dataset.task,
        inputs=sources,
        methods=methods,
        verifier=None if methods else place.verifier,
        result=dataset.scratch(place.scratch) / "rerank.json",
        evidence=dataset.evidence(place.scratch),
        data_dir=place.data_dir,
    )
    with ScoreProgress() as progress:
        return rerank(request, progress)


def greedy_rates(dataset: Dataset, place: Place) -> dict[str, float]:
    """Return whether the greedy sample of each problem passes; empty without greedy samples."""
    path = dataset.file("greedy")
    if path is None:
        return {}
    folder = dataset.scratch(place.scratch)
    request = RerankRequest(
        samples=(path,),
        task=dataset.task,
        methods=("random",),
        result=folder / "greedy.json",
        evidence=folder / "greedy.evidence.arrow",
        data_dir=place.data_dir,
    )
    with ScoreProgress() as progress:
        outcome = rerank(request, progress)
    return {problem.problem.task_id: float(problem.passed[0]) for problem in scored(outcome)}


def scored(outcome: RerankOutcome) -> list[RankedProblem]:
    """Return the problems all samples of which could be executed."""
    return [problem for problem in outcome.problems if not problem.num_failed]


def methods_table(outcome: RerankOutcome, greedy: Mapping[str, float]) -> dict[str, Any]:
    """Return all methods' pass@k with intervals, and their paired differences to some methods."""
    problems = scored(outcome)
    fewest = min(len(problem.verdicts) for problem in problems)
    rates: Rates = {
        method: {f"pass@{k}": [problem.rate(method, k) for problem in problems] for k in PICKS if k <= fewest}
        for method in (*outcome.methods, ORACLE)
    }
    rates[ORACLE] = {"pass@1": rates[ORACLE]["pass@1"]}
    if all(problem.problem.task_id in greedy for problem in problems):
        rates["greedy"] = {"pass@1": [greedy[problem.problem.task_id] for problem in problems]}
    return {
        method: {
            metric: estimate(values)
            | {
                f"over {other}": shown(difference(values, rates[other][metric]))
                for other in ("random", "majority", "srank", "combined")
                if metric in rates.get(other, {}) and other != method
            }
            for metric, values in by_metric.items()
        }
        for method, by_metric in rates.items()
    }


def facts(outcome: RerankOutcome) -> dict[str, Any]:
    """Return counts of the evidence, and which methods used tests that the prompt shows."""
    problems = scored(outcome)
    evidence = evidence_dict(outcome)
    keys = ("samples", "distinct_programs", "calls", "tests", "opaque_tests", "tasks_without_tests", "outputs")
    texts = outcome.tests.num_texts if outcome.tests is not None else 0
    return {
        "problems": len(problems),
        "left_out": len(outcome.problems) - len(problems),
        "samples_per_problem": sorted({len(problem.verdicts) for problem in problems}),
        "texts_of_tests": texts,
        "visible_tests": list(methods_with_visible_tests(outcome)),
        "examples": outcome.counts.examples,
        "prompt_shows_tests": bool(outcome.counts.examples),
        "correct_tests": _correct_tests(problems),
        **{key: evidence[key] for key in keys},
    }


def _correct_tests(problems: Iterable[RankedProblem]) -> float | None:
    """Return the share of written tests that the right programs pass, over problems with both."""
    shares = []
    for problem in problems:
        evidence, passed = problem.evidence, np.array(problem.passed)
        if passed.any() and evidence.tests:
            right_T = evidence.passed_PT[evidence.program_N[passed]].mean(axis=0)
            shares.append(float(right_T @ evidence.times_T / evidence.times_T.sum()))
    return round(float(np.mean(shares)), 4) if shares else None


def rankers_of(outcome: RerankOutcome) -> dict[str, Ranker]:
    """Return the methods that are compared by size, with the verifier if there is one."""
    rankers = {name: RANKERS[name] for name in COMPARED}
    return rankers if outcome.verifier is None else {**rankers, VERIFIER: outcome.verifier.ranker()}


def by_samples(outcome: RerankOutcome) -> dict[str, Any]:
    """Return pass@1 of the compared methods by the number of samples."""
    problems = scored(outcome)

    def subset(problem: RankedProblem, size: int, generator: random.Random) -> tuple[TaskEvidence, list[bool]]:
        samples = sorted(generator.sample(range(len(problem.verdicts)), size))
        return with_samples(problem.evidence, samples), [problem.passed[sample] for sample in samples]

    fewest = min(len(problem.verdicts) for problem in problems)
    return _by_size(problems, rankers_of(outcome), subset, fewest)


def by_texts(outcome: RerankOutcome, dataset: Dataset) -> dict[str, Any]:
    """Return pass@1 of the compared methods by the number of texts of tests."""
    problems, path = scored(outcome), dataset.file("tests")
    if path is None:
        return {}
    texts = _texts(path, problems)

    def subset(problem: RankedProblem, size: int, generator: random.Random) -> tuple[TaskEvidence, list[bool]]:
        chosen = generator.sample(texts[problem.problem.task_id], size)
        names = problem.problem.entry_points
        times = {test.source: test.times_written for test in count_tests(chosen, names)}
        return with_tests(problem.evidence, times, names), list(problem.passed)

    return _by_size(problems, rankers_of(outcome), subset, min(map(len, texts.values())))


_Subset = Callable[[RankedProblem, int, random.Random], tuple[TaskEvidence, list[bool]]]


def _by_size(
    problems: Sequence[RankedProblem], rankers: Mapping[str, Ranker], subset: _Subset, fewest: int
) -> dict[str, Any]:
    """Return estimates by size: for each problem the mean over random subsets; at the largest size there is one."""
    table: dict[str, Any] = {}
    for size in (*(size for size in SIZES if size < fewest), fewest):
        draws = DRAWS if size < fewest else 1
        rates: dict[str, list[float]] = {method: [] for method in (*rankers, ORACLE)}
        for problem in problems:
            sums = dict.fromkeys(rates, 0.0)
            for draw in range(draws):
                generator = random.Random(f"{problem.problem.task_id} {size} {draw}")
                evidence, passed = subset(problem, size, generator)
                for method, ranker in rankers.items():
                    sums[method] += ranker(evidence).pass_at_k(passed, 1) / draws
                sums[ORACLE] += any(passed) / draws
            for method, total in sums.items():
                rates[method].append(total)
        table[str(size)] = {method: estimate(values) for method, values in rates.items()}
    return table


def _texts(path: Path, problems: Sequence[RankedProblem]) -> dict[str, list[str]]:
    """Return the texts of tests of each problem; ids may be bare numbers, as in `read_tests`."""
    texts: dict[str, list[str]] = {problem.problem.task_id: [] for problem in problems}
    known = {task_id.rpartition("/")[2]: task_id for task_id in texts}
    with open_given(path) as given:
        for _, fields in rows(given):
            task_id = known.get(str(fields["task_id"]).strip().rpartition("/")[2])
            if task_id is not None:
                texts[task_id].append(str(fields["completion"]))
    return texts


def by_sources(dataset: Dataset, place: Place) -> dict[str, Any]:
    """Return for each choice of inputs: inputs and clusters per problem, and pass@1 of the methods that use them."""
    table: dict[str, Any] = {}
    for sources in SOURCES:
        outcome = ranked(dataset, place, sources=sources, methods=BY_OUTPUT)
        problems = scored(outcome)
        table[",".join(sources)] = {
            "inputs": round(outcome.counts.inputs / outcome.counts.tasks, 2),
            "clusters": round(outcome.counts.clusters / outcome.counts.tasks, 2) if outcome.counts.inputs else 1.0,
            "problems_without": sum(not problem.evidence.inputs for problem in problems),
            **{method: estimate([problem.rate(method, 1) for problem in problems]) for method in BY_OUTPUT},
        }
    return table


def estimate(values: Sequence[float]) -> dict[str, float]:
    """Return mean and interval of one value for each problem."""
    return shown(interval(values))


def shown(value: Estimate) -> dict[str, float]:
    """Return an estimate in percent, rounded, as the JSON file holds it."""
    return {"mean": round(100 * value.mean, 2), "low": round(100 * value.low, 2), "high": round(100 * value.high, 2)}
