"""Are the benchmarks the makers' own, and do our verdicts agree with published ones?"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from evalkit.cli import main
from evalkit.errors import EvalError
from evalkit.samples.given import read_samples
from evalkit.sandbox.evalplus.rules import agrees
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring import time_limits
from evalkit.scoring.grader import Grader
from evalkit.tasks import prompts, protocols, registry


def failures(pool: Pool, name: str, data: Path) -> dict[str, str]:
    benchmark = registry.load(name, data_dir=data)
    jobs = [problem.job(problem.reference, cpu_s=time_limits.REFERENCE_CPU_S) for problem in benchmark.problems]
    verdicts = dict(pool.check_all(jobs))
    return {benchmark.problems[i].task_id: str(v) for i, v in verdicts.items() if not v.passed}


@pytest.mark.parametrize(("name", "number"), [("mbpp", 974), ("mbpp-sanitized", 427)])
def test_all_mbpp_references_pass(pool: Pool, shared_data: Path, name: str, number: int):
    assert len(registry.load(name, data_dir=shared_data).problems) == number
    assert failures(pool, name, shared_data) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("humaneval+", 164), ("mbpp+", 378)])
def test_all_evalplus_references_pass(pool: Pool, shared_data: Path, name: str, number: int):
    assert len(registry.load(name, data_dir=shared_data).problems) == number
    assert failures(pool, name, shared_data) == {}


def test_only_tasks_that_pass_objects_are_judged_beside_the_program(shared_data: Path, humaneval):
    mbpp = registry.load("mbpp", data_dir=shared_data)
    sanitized = registry.load("mbpp-sanitized", data_dir=shared_data)
    assert [problem.task_id for problem in mbpp.problems if problem.inline] == ["Mbpp/367", "Mbpp/601", "Mbpp/927"]
    assert [problem for problem in (*sanitized.problems, *humaneval.problems) if problem.inline] == []


def test_a_verdict_from_beside_the_program_is_flagged(pool: Pool, shared_data: Path):
    problem = next(p for p in registry.load("mbpp", data_dir=shared_data).problems if p.task_id == "Mbpp/367")
    assert pool.check_alone(problem.job(problem.reference)).in_process
    verdict = pool.check_alone(problem.job(problem.reference.replace("return True", "return False")))
    assert (verdict.outcome, verdict.in_process) == ("wrong", True)


def published(data: Path, pool: Pool, task: str) -> tuple[dict[str, bool], dict[str, bool]]:
    """Return our verdicts and the published ones, by task id, on the makers' samples of Qwen2.5-Coder-1.5B."""
    family = task.rstrip("+")
    folder = data / "qwen2.5-coder-1.5b"
    benchmark = registry.load(task, data_dir=data)
    problems = {problem.task_id: problem for problem in benchmark.problems}
    limits = time_limits.calibrate(benchmark.problems, pool, VerdictCache(None)).cpu_s
    lines = (folder / f"1.5b-base-{family}-generated.jsonl").read_text().splitlines()
    ours = {}
    grader = Grader(pool, VerdictCache(None))
    chosen = [line for line in map(json.loads, lines) if line["task_id"] in problems]
    for line in chosen:
        problem = problems[line["task_id"]]
        grader.add(problem.job(problem.prompt + line["completion"], cpu_s=limits[problem.task_id]))
    for line, verdict in zip(chosen, grader.finish(), strict=True):
        ours[line["task_id"]] = verdict.passed
    results = json.loads((folder / f"1.5b-base-{family}-generated_eval_results.json").read_text())["eval"]
    keys = ("base_status", "plus_status") if task.endswith("+") else ("base_status",)
    theirs = {task_id: all(results[task_id][0][key] == "pass" for key in keys) for task_id in ours}
    return ours, theirs


def test_humaneval_verdicts_agree_with_the_published_ones_on_all_164(pool: Pool, shared_data: Path):
    ours, theirs = published(shared_data, pool, "humaneval")
    assert len(ours) == 164
    assert ours == theirs
    assert sum(ours.values()) == 72  # 43.9 percent


@pytest.mark.slow
def test_humaneval_plus_verdicts_agree_with_the_published_ones_on_all_164(pool: Pool, shared_data: Path):
    ours, theirs = published(shared_data, pool, "humaneval+")
    assert ours == theirs
    assert sum(ours.values()) == 60  # 36.6 percent


@pytest.mark.slow
def test_mbpp_plus_verdicts_agree_but_where_the_data_version_differs(pool: Pool, shared_data: Path):
    ours, theirs = published(shared_data, pool, "mbpp+")
    assert {task_id for task_id in ours if ours[task_id] != theirs[task_id]} <= {
        "Mbpp/2",
        "Mbpp/579",
        "Mbpp/599",
        "Mbpp/794",
    }


def _burn() -> None:
    while True:
        pass


@pytest.mark.slow
def test_verdicts_do_not_change_under_heavy_load(pool: Pool, shared_data: Path):
    quiet, _ = published(shared_data, pool, "humaneval")
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(8)]
    for burner in burners:
        burner.start()
    try:
        with Pool(workers=8) as crowded:
            loaded, _ = published(shared_data, crowded, "humaneval")
    finally:
        for burner in burners:
            burner.kill()
    assert loaded == quiet


def test_a_slow_reference_gets_a_longer_limit(pool: Pool, shared_data: Path):
    problem = next(p for p in registry.load("mbpp", data_dir=shared_data).problems if p.task_id == "Mbpp/123")
    limit = time_limits.calibrate([problem], pool, VerdictCache(None)).cpu_s["Mbpp/123"]
    assert limit > 3.0  # its reference takes seconds; a flat limit of 3 s fails it on many machines


def test_a_reference_that_fails_is_named(pool: Pool, humaneval):
    from dataclasses import replace

    broken = replace(humaneval.problems[0], reference="x = 1")
    found = time_limits.calibrate([broken, humaneval.problems[1]], pool, VerdictCache(None))
    assert list(found.failed) == ["HumanEval/0"]
    assert found.cpu_s["HumanEval/1"] == 3.0


@pytest.mark.parametrize("name", ["mbpp", "mbpp-sanitized", "humaneval+", "mbpp+"])
def test_missing_data_is_named_with_the_way_to_get_it(tmp_path: Path, name: str):
    with pytest.raises(EvalError, match=r"https://github.com/.*--data-dir"):
        registry.load(name)
    with pytest.raises(EvalError, match=r"holds no .*get it from https://"):
        registry.load(name, data_dir=tmp_path)
    with pytest.raises(EvalError, match="no such folder"):
        registry.load(name, data_dir=tmp_path / "missing")


def test_data_that_is_not_the_pinned_one_is_refused(tmp_path: Path, shared_data: Path):
    shutil.copy(shared_data / "mbpp" / "mbpp.jsonl", tmp_path)
    path = tmp_path / "mbpp.jsonl"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("minimum", "maximum", 1))
    with pytest.raises(EvalError, match=r"sha256 .* is not that of MBPP"):
        registry.load("mbpp", data_dir=tmp_path)


def test_plain_mbpp_ids_are_read(tmp_path: Path, shared_data: Path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"task_id": 11, "solution": "x"}\n{"task_id": "Mbpp/12", "completion": "y"}\n')
    found = read_samples(path, registry.load("mbpp", data_dir=shared_data)).samples
    assert [sample.task_id for sample in found] == ["Mbpp/11", "Mbpp/12"]


def test_the_three_shot_prompt_shows_tasks_2_3_and_4_and_asks_11_to_510(shared_data: Path):
    benchmark = registry.load("mbpp", data_dir=shared_data)
    protocol = protocols.find(None, task="mbpp")
    asked = protocols.covered_problems(protocol, benchmark)
    assert (len(asked), asked[0].task_id, asked[-1].task_id) == (500, "Mbpp/11", "Mbpp/510")
    text = prompts.build_prompt(protocol, asked[0], benchmark).text
    assert text.count("[BEGIN]") == 4
    assert text.count("[DONE]") == 3
    assert "similar_elements" in text
    assert text.endswith("\n[BEGIN]\n")
    assert "\r" not in text
    sanitized = registry.load("mbpp-sanitized", data_dir=shared_data)
    assert len(protocols.covered_problems(protocols.find(None, task="mbpp-sanitized"), sanitized)) == 257


def test_every_task_has_a_default_protocol_and_every_protocol_builds_prompts(shared_data: Path):
    for name in registry.BENCHMARKS:
        benchmark = registry.load(name, data_dir=shared_data)
        assert name in protocols.find(None, task=name).tasks
        for protocol in protocols.PROTOCOLS:
            if name in protocol.tasks:
                problem = protocols.covered_problems(protocol, benchmark)[0]
                assert prompts.build_prompt(protocol, problem, benchmark).text
    assert len({protocol.name for protocol in protocols.PROTOCOLS}) == len(protocols.PROTOCOLS)


@pytest.mark.parametrize(
    ("given", "wanted", "tolerance", "same"),
    [
        (1.0 + 1e-8, 1.0, 1e-6, True),
        (1.1, 1.0, 1e-6, False),
        (1, 1.0 + 1e-8, 1e-6, False),  # another type, not equal
        ([1.0, 2.0 + 1e-9], [1.0, 2.0], 1e-6, True),
        ((1.0,), [1.0 + 1e-9], 1e-6, False),
        ([1.0], [1.0, 2.0], 1e-6, False),
        ("a", "b", 1e-6, False),
        (float("nan"), float("nan"), 1e-6, False),
        ([1], [1], 0.0, True),
    ],
)
def test_answers_are_compared_by_evalplus_rules(given, wanted, tolerance: float, same: bool):
    assert agrees("HumanEval/0", "f", [], given, wanted, tolerance) is same


def test_samples_for_an_older_mbpp_plus_are_left_out_and_said(tmp_path: Path, shared_data: Path):
    samples, result = tmp_path / "samples.jsonl", tmp_path / "score.json"
    reference = registry.load("mbpp+", data_dir=shared_data).problems[0]
    lines = [{"task_id": reference.task_id, "solution": reference.reference}, {"task_id": "Mbpp/83", "solution": "x"}]
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["score", "--samples", samples, "--tasks", "mbpp+", "--data-dir", shared_data, "--json", result]
    done = CliRunner().invoke(main, [str(part) for part in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "1 samples are of 1 problems that mbpp+ does not have (Mbpp/83, ...): left out" in done.output
    scores = json.loads(result.read_text())["scores"]["mbpp+"]
    assert (scores["pass@1"], scores["left_out"], scores["missing"]) == (1.0, 1, 377)
    assert "1 samples are of problems that this form" in result.with_suffix(".html").read_text()
