"""Rankings before verdicts: no ground truth reaches a ranker. A toy ranker is added as the recipe says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import EvalError
from evalkit.rerank import run as run_module
from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.ranking import Ranking
from evalkit.rerank.registry import RANKERS, choose_methods, load_ranker
from evalkit.rerank.run import RerankOutcome, RerankRequest, rerank
from evalkit.samples.merged import MergedSamples
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.prompts import shown_text
from evalkit.tasks.protocols import find
from tests.evalkit.rerank.sample_runs import write_samples, write_tests


class Notes:
    """Callbacks that keep the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def start(self, what: str, total: int) -> None: ...
    def step(self, steps: int = 1, tokens: int = 0) -> None: ...
    def stop(self) -> None: ...


def run_with(benchmark: Benchmark, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> RerankOutcome:
    folder.mkdir()
    monkeypatch.setattr("evalkit.tasks.registry.load", lambda name, data_dir=None: benchmark)
    request = RerankRequest(
        samples=(write_samples(folder),),
        tests=write_tests(folder),
        inputs=("tests", "examples", "mutation"),
        result=folder / "r.json",
        evidence=folder / "e.arrow",
        limit=3,
        **settings,
    )
    return rerank(request, Notes())


@pytest.mark.slow
def test_the_benchmarks_tests_change_verdicts_and_no_ranking(
    humaneval: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(problem: Problem) -> Problem:
        check = "def check(candidate):\n    assert False\n"
        return replace(problem, test=problem.test + "\n" + check + f"check({problem.entry_points[0]})\n", reference="")

    other = replace(humaneval, problems=tuple(changed(problem) for problem in humaneval.problems))
    first = run_with(humaneval, tmp_path / "a", monkeypatch)
    second = run_with(other, tmp_path / "b", monkeypatch)
    assert [problem.rankings for problem in first.problems] == [problem.rankings for problem in second.problems]
    assert all(set(problem.rankings) == set(RANKERS) for problem in first.problems)
    assert [sum(problem.passed) for problem in first.problems] == [2, 1, 2]
    assert [sum(problem.passed) for problem in second.problems] == [0, 0, 0]
    assert first.scores["oracle"].estimates["pass@1"].mean == 1.0
    assert second.scores["oracle"].estimates["pass@1"].mean == 0.0


def test_a_ranker_in_a_file_is_named_as_the_file_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for source, message in (
        ("", "defines no function rank"),
        ("rank = 3", "defines no function rank"),
        ("def rank(:", "cannot be imported"),
        ("import missing_module", "cannot be imported"),
    ):
        path.write_text(source)
        with pytest.raises(EvalError, match=message):
            load_ranker(path)
    with pytest.raises(EvalError, match="cannot be imported"):
        load_ranker(tmp_path / "missing.py")
    with pytest.raises(EvalError, match="codet is the name of another method"):
        load_ranker(tmp_path / "codet.py")
    with pytest.raises(EvalError, match="is no Python file"):
        load_ranker(tmp_path / "mine.txt")
    path.write_text("def rank(evidence): return evidence")
    name, rank = load_ranker(path)
    assert (name, rank(5)) == ("mine", 5)  # type: ignore[arg-type]  # any value
    assert choose_methods([], {**RANKERS, name: rank}, has_tests=False)[-1] == "mine"


def test_a_toy_ranker_is_added_by_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def shortest(evidence: TaskEvidence) -> Ranking:
        lengths = [len(evidence.programs[program]) for program in evidence.program_N]
        return Ranking.of((-float(length), [sample]) for sample, length in enumerate(lengths))

    monkeypatch.setitem(RANKERS, "shortest", shortest)
    assert choose_methods(["shortest", "oracle"], RANKERS, has_tests=True) == ("random", "shortest")
    assert "shortest" in choose_methods([], RANKERS, has_tests=True)


@pytest.mark.parametrize(
    ("protocol", "is_shown"),
    [("humaneval-codet-v1", False), ("humaneval-codet-chat-v1", False), ("humaneval-openai-v1", True)],
)
def test_examples_count_as_shown_only_where_the_protocol_shows_them(
    tmp_path: Path, humaneval: Benchmark, protocol: str, is_shown: bool
) -> None:
    found = find(protocol, task="humaneval")
    prompts = {item.task_id: shown_text(found, item, humaneval) for item in humaneval.problems}
    samples = MergedSamples(
        files=(), problems=humaneval.problems, samples=(), prompts=prompts, num_missing=0, num_excluded=0
    )
    request = RerankRequest(samples=(), result=tmp_path / "r.json", evidence=tmp_path / "e.arrow")
    assert run_module._evidence_settings(request, samples).docstring_examples is is_shown
