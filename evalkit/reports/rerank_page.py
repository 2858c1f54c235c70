"""HTML page of choosing among samples: scores of all methods, then every problem with its clusters and choices.

A cluster holds the programs with equal outputs on all inputs. Problems come first where some methods choose a right
program and others a wrong one, then those where methods choose different clusters. Of many clusters, inputs or tests of
a problem, the page shows the first ones and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.reports.render import render
from evalkit.rerank.evidence import Bool, TaskEvidence
from evalkit.rerank.rankers.clusters import all_programs, cluster
from evalkit.rerank.registry import BASELINE
from evalkit.rerank.run import RerankOutcome
from evalkit.scoring.ranked_problems import RankedProblem

SHOWN_CLUSTERS = 8
SHOWN_INPUTS = 10
SHOWN_TESTS = 12
"""Clusters, inputs and tests of one problem that are shown. The clusters that methods choose are always shown."""

SHOWN_CHARACTERS = 3000
"""Longest program that is shown whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterView:
    """Programs of one problem with equal outputs, as the page shows them."""

    name: str
    """A letter: A is the largest cluster."""
    num_samples: int
    num_programs: int
    num_right: int
    """Samples that pass the benchmark's tests."""
    chosen_by: tuple[str, ...]
    """Methods that put a sample of this cluster first."""
    tests_passed: str
    """Number of distinct tests that its programs pass, such as `3` or `3 to 5`."""
    outputs: tuple[str, ...]
    """Output for each shown input."""
    marks: tuple[str, ...]
    """`all`, `some` or `none` of its programs pass each shown test."""
    program: str
    """The program of its first sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemView:
    """One problem, as the page shows it."""

    task_id: str
    prompt: str
    num_samples: int
    num_right: int
    differs: int
    """2: some methods are right and others wrong; 1: methods choose different clusters; 0: they agree."""
    choices: tuple[tuple[str, str, bool, float], ...]
    """Method, name of its cluster, whether its first sample is right, and its expected pass@1."""
    clusters: tuple[ClusterView, ...]
    num_clusters: int
    inputs: tuple[tuple[str, str], ...]
    """Shown inputs with their sources."""
    num_inputs: int
    tests: tuple[tuple[str, int], ...]
    """Shown tests with the number of times that they were written."""
    num_tests: int
    num_failed: int
    """Samples that could not be executed."""


def write_rerank_page(path: Path, outcome: RerankOutcome, result: dict[str, Any]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        outcome: What was ranked.
        result: Its JSON result.

    Raises:
        EvalError: The page cannot be written, or jinja2 is not installed.
    """
    problems = sorted((view_of(problem) for problem in outcome.problems), key=lambda view: -view.differs)
    name = ", ".join(Path(file.label).name for file in outcome.samples.files)
    render(path, "rerank.html.j2", name=name, result=result, problems=problems)


def view_of(problem: RankedProblem) -> ProblemView:
    """Return one problem as the page shows it."""
    evidence = problem.evidence
    passed_N = np.array(problem.passed, np.bool_)
    clusters = cluster(evidence.output_PI, all_programs(evidence))
    sizes = clusters.member_CP @ evidence.count_P
    order = sorted(range(len(clusters)), key=lambda place: (-int(sizes[place]), int(clusters.first_C[place])))
    names = {place: _letters(rank) for rank, place in enumerate(order)}
    cluster_P = clusters.member_CP.argmax(axis=0)
    chosen = {method: int(cluster_P[evidence.program_N[problem.first(method)]]) for method in problem.rankings}
    inputs = range(min(SHOWN_INPUTS, len(evidence.inputs)))
    tests = np.argsort(-evidence.times_T, kind="stable")[:SHOWN_TESTS].tolist() if evidence.tests else []
    shown = [place for rank, place in enumerate(order) if rank < SHOWN_CLUSTERS or place in chosen.values()]
    return ProblemView(
        task_id=evidence.task_id,
        prompt=problem.problem.prompt or problem.problem.description,
        num_samples=len(passed_N),
        num_right=int(passed_N.sum()),
        differs=_differs(problem, chosen),
        choices=tuple(
            (method, names[place], bool(passed_N[problem.first(method)]), problem.rate(method, 1))
            for method, place in chosen.items()
        ),
        clusters=tuple(
            _cluster_view(
                names[place],
                evidence,
                clusters.member_CP[place],
                passed_N,
                chosen_by=tuple(method for method, own in chosen.items() if own == place),
                inputs=inputs,
                tests=tests,
            )
            for place in shown
        ),
        num_clusters=len(order),
        inputs=tuple((evidence.inputs[place], evidence.input_sources[place]) for place in inputs),
        num_inputs=len(evidence.inputs),
        tests=tuple((evidence.tests[place].source, evidence.tests[place].times_written) for place in tests),
        num_tests=len(evidence.tests),
        num_failed=problem.num_failed,
    )


def _differs(problem: RankedProblem, chosen: dict[str, int]) -> int:
    """Return how far the methods other than the random one differ; see `ProblemView.differs`."""
    methods = [method for method in chosen if method != BASELINE]
    if len({problem.passed[problem.first(method)] for method in methods}) > 1:
        return 2
    return int(len({chosen[method] for method in methods}) > 1)


def _letters(rank: int) -> str:
    """Return A to Z, then A1, B1 and so on."""
    return chr(ord("A") + rank % 26) + (str(rank // 26) if rank >= 26 else "")


def _cluster_view(
    name: str,
    evidence: TaskEvidence,
    member_P: Bool,
    passed_N: Bool,
    *,
    chosen_by: tuple[str, ...],
    inputs: Sequence[int],
    tests: Sequence[int],
) -> ClusterView:
    samples = list(evidence.samples_of(member_P))
    first = int(evidence.program_N[samples[0]])
    passed_PT = evidence.passed_PT[member_P]
    counts = passed_PT.sum(axis=1)
    low, high = int(counts.min()), int(counts.max())
    program = evidence.programs[first]
    if len(program) > SHOWN_CHARACTERS:
        program = f"{program[:SHOWN_CHARACTERS]}\n... {len(program) - SHOWN_CHARACTERS:,} more characters"
    return ClusterView(
        name=name,
        num_samples=len(samples),
        num_programs=int(member_P.sum()),
        num_right=int(passed_N[samples].sum()),
        chosen_by=chosen_by,
        tests_passed=str(low) if low == high else f"{low} to {high}",
        outputs=tuple(evidence.texts[first][place] for place in inputs),
        marks=tuple(_mark(passed_PT[:, test]) for test in tests),
        program=program,
    )


def _mark(passed_P: Bool) -> str:
    return "all" if passed_P.all() else "some" if passed_P.any() else "none"
