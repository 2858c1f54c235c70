"""Training from files: what decides labels, what does not, and which tasks are where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import EvalError
from evalkit.rerank.verifier import train as train_module
from evalkit.rerank.verifier.train import TrainedVerifier, TrainVerifierRequest, train_verifier
from evalkit.tasks.base import Benchmark, Problem
from tests.evalkit.rerank.sample_runs import COMPLETIONS, TESTS, write_rows
from tests.evalkit.rerank.test_run import Notes

pytest.importorskip("sklearn")

CRASHING = {"HumanEval/0": ["    raise ValueError\n", "    return undefined\n"]}
EQUAL = {"HumanEval/34": ["    return sorted(set(l))\n"] * 3}
WITHOUT_TEST = {"HumanEval/45": COMPLETIONS["HumanEval/45"]}


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, benchmarks: dict[str, Benchmark], **settings: Any
) -> tuple[TrainedVerifier, Notes]:
    folder.mkdir()
    monkeypatch.setattr(train_module.registry, "load", lambda name, data_dir=None: benchmarks[name])
    samples = write_rows(folder / "samples.jsonl", COMPLETIONS | CRASHING | EQUAL | WITHOUT_TEST)
    tests = write_rows(folder / "tests.jsonl", TESTS)
    request = TrainVerifierRequest(
        samples=(samples,), tests=(tests,), out=folder / "v", evidence=folder / "e.arrow", **settings
    )
    notes = Notes()
    return train_verifier(request, notes), notes


def wrong(problem: Problem) -> Problem:
    check = f"def check(candidate):\n    assert False\ncheck({problem.entry_points[0]})\n"
    return replace(problem, test=f"{problem.test}\n{check}", reference="")


@pytest.mark.slow
def test_the_benchmarks_tests_change_labels_and_no_feature(
    humaneval: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = []

    def choose(train: Any, validation: Any, candidates: Any) -> Any:
        rows.append({task.evidence.task_id: (task.rows_PF, task.right_N) for task in train})
        raise EvalError("enough")

    monkeypatch.setattr(train_module, "choose", choose)
    other = replace(humaneval, problems=tuple(map(wrong, humaneval.problems)))
    for name, benchmark in (("a", humaneval), ("b", other)):
        with pytest.raises(EvalError, match="enough"):
            run(tmp_path / name, monkeypatch, {"humaneval": benchmark}, tasks=("humaneval",))
    first, second = rows
    assert first.keys() == second.keys() == (COMPLETIONS | CRASHING | EQUAL).keys()
    for task_id in first:
        assert np.array_equal(first[task_id][0], second[task_id][0]), task_id
        assert not second[task_id][1].any()
    assert sum(right.sum() for _, right in first.values()) == 10 + 3


def part(benchmark: Benchmark, name: str, ids: set[str]) -> Benchmark:
    problems = tuple(problem for problem in benchmark.problems if problem.task_id in ids)
    others = frozenset(problem.task_id for problem in benchmark.problems) - ids
    return replace(benchmark, name=name, problems=problems, excluded_ids=others)


@pytest.mark.slow
def test_validation_tasks_are_tuned_on_and_never_trained_on(
    humaneval: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"HumanEval/53", "HumanEval/0"}
    rest = {problem.task_id for problem in humaneval.problems} - held
    benchmarks = {"rest": part(humaneval, "rest", rest), "held": part(humaneval, "held", held)}
    trained, notes = run(tmp_path / "a", monkeypatch, benchmarks, tasks=("rest",), validation="held")
    verifier = trained.verifier
    assert set(verifier.tuned_on.tasks) == held
    assert set(verifier.trained_on.tasks) == (COMPLETIONS | EQUAL).keys() - held
    assert {task.evidence.task_id for task, _ in trained.fitted.held_out} == held
    assert "choosing a model on 2 tasks of held" in notes.lines
    assert trained.quality.tasks == 2
    assert not verifier.use_log_probs


@pytest.mark.slow
def test_the_labels_follow_the_verdicts_and_every_task_has_evidence(
    humaneval: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, notes = run(tmp_path / "a", monkeypatch, {"humaneval": humaneval}, tasks=("humaneval",))
    assert trained.quality.right_share == pytest.approx(13 / 35)
    assert trained.num_failed == 0
    assert trained.counts.tasks == 7
    assert trained.counts.examples == 0, "visible tests are not used"
    assert any("no sample is of other tasks" in line for line in notes.lines)
    assert any(line.startswith("tests: 160 of 164 humaneval problems have no valid test") for line in notes.lines)


@pytest.mark.slow
def test_a_task_that_is_also_outside_of_the_training_is_left_out(
    humaneval: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = next(problem for problem in humaneval.problems if problem.task_id == "HumanEval/53")
    whole = replace(humaneval, problems=(*humaneval.problems, replace(twin, task_id="HumanEval/900")))
    benchmarks = {"he": whole, "he:train": replace(humaneval, name="he:train")}
    trained, notes = run(tmp_path / "a", monkeypatch, benchmarks, tasks=("he:train",))
    assert "HumanEval/53" not in trained.verifier.trained_on.tasks
    (line,) = [line for line in notes.lines if "HumanEval/900" in line]
    assert line == "tasks left out, because they are also outside of he:train: HumanEval/53 is HumanEval/900"
    trained.verifier.refuse_seen([whole.problems[-1]], "v")


def test_visible_tests_are_no_inputs(humaneval: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvalError, match="--inputs examples: is not used in training, because visible tests may be"):
        run(tmp_path / "a", monkeypatch, {"humaneval": humaneval}, tasks=("humaneval",), inputs=("examples",))


def test_samples_of_no_task_are_an_error(humaneval: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = {problem.task_id for problem in humaneval.problems} - {"HumanEval/1"}
    parts = {"one": part(humaneval, "one", {"HumanEval/1"}), "held": part(humaneval, "held", held)}
    with pytest.raises(EvalError, match="--tasks one: no sample is of these tasks"):
        run(tmp_path / "a", monkeypatch, parts, tasks=("one",), validation="held")
    with pytest.raises(EvalError, match="--validation one: no sample is of these tasks"):
        run(tmp_path / "b", monkeypatch, parts, tasks=("held",), validation="one")


def test_log_probabilities_of_the_sample_file_reach_the_evidence(
    humaneval: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def choose(train: Any, validation: Any, candidates: Any) -> Any:
        seen.extend(train)
        raise EvalError("enough")

    monkeypatch.setattr(train_module, "choose", choose)
    monkeypatch.setattr(train_module.registry, "load", lambda name, data_dir=None: humaneval)
    samples = write_rows(tmp_path / "s.jsonl", {"HumanEval/53": COMPLETIONS["HumanEval/53"]}, mean_logprob=-0.25)
    tests = write_rows(tmp_path / "t.jsonl", TESTS)
    request = TrainVerifierRequest(
        samples=(samples,), tests=(tests,), tasks=("humaneval",), out=tmp_path / "v", evidence=tmp_path / "e.arrow"
    )
    with pytest.raises(EvalError, match="enough"):
        train_verifier(request, Notes())
    assert seen[0].evidence.log_prob_N.tolist() == [-0.25] * 6
    write_rows(samples, {"HumanEval/53": ["    return x\n"]}, mean_logprob=0.5)
    with pytest.raises(EvalError, match=r"line 1: mean_logprob is 0.5, expected the mean log-probability"):
        train_verifier(request, Notes())
