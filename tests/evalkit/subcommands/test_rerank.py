"""`evalkit rerank` from sample and test files to JSON, table and page, and its one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from evalkit.rerank.registry import RANKERS, WITHOUT_TESTS
from tests.evalkit.commands import call, write_lines
from tests.evalkit.rerank.sample_runs import COMPLETIONS, write_rows, write_samples, write_tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with samples, tests, and the outputs of one run, whose text is in `output.txt`."""
    folder = tmp_path_factory.mktemp("rerank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        samples, tests = write_samples(folder), write_tests(folder)
        done = call("rerank", samples, "--tests", tests, "--json", folder / "r.json", "--html", folder / "r.html")
    assert done.exit_code == 0, done.output
    (folder / "output.txt").write_text(done.output)
    return folder


@pytest.fixture
def again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A second run on the same evidence and verdicts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    def run(*options: object) -> Result:
        done = call("rerank", folder / "samples.jsonl", "--evidence", folder / "r.evidence.arrow", *options)
        assert done.exit_code == 0, done.output
        return done

    return run


def test_scores_differences_choices_and_counts_are_in_the_result(folder: Path) -> None:
    result = json.loads((folder / "r.json").read_text())
    assert list(result["scores"]) == [*RANKERS, "oracle"]
    assert result["scores"]["random"]["pass@1"] == pytest.approx((3 + 2 + 2 + 1 + 2) / 30)
    assert result["scores"]["oracle"]["pass@1"] == 1.0
    assert result["scores"]["codet"]["pass@1"] == pytest.approx((4 + 2 / 6) / 5)  # a problem has no test
    assert result["scores"]["codet"]["interval"]["pass@1"]["low"] < result["scores"]["codet"]["pass@1"]
    difference = result["differences"]["codet"]["pass@1"]
    assert difference["mean"] == pytest.approx(
        result["scores"]["codet"]["pass@1"] - result["scores"]["random"]["pass@1"]
    )
    assert difference["low"] > 0
    assert result["differences"]["random"]["pass@1"]["mean"] == 0
    assert list(result["tasks"]) == sorted(COMPLETIONS, key=lambda task_id: int(task_id.rpartition("/")[2]))
    assert result["tasks"]["HumanEval/23"]["codet"] == {"sample": 3, "right": True, "group": 2, "pass@1": 1.0}
    assert result["tasks"]["HumanEval/23"]["majority"] == {"sample": 0, "right": False, "group": 3, "pass@1": 0.0}
    evidence = result["evidence"]
    assert (evidence["tasks"], evidence["samples"], evidence["distinct_programs"]) == (5, 30, 24)
    assert (evidence["calls"], evidence["tests"], evidence["outputs_failed"]) == (12, 12, 0)
    assert evidence["time"] > 0
    assert result["visible_tests"]["methods"] == ["alphacode"]
    assert result["infra_errors"] == 0


def test_the_table_names_every_method_and_output(folder: Path) -> None:
    output = (folder / "output.txt").read_text()
    assert "5 problems, 30 samples, 24 distinct programs, 12 calls, 12 tests" in output
    assert "tests.jsonl: 1 of 12 texts are empty" in output
    assert "tests.jsonl: 1 of 5 humaneval problems have no valid test (HumanEval/45): methods that need tests" in output
    assert "pass@k is reported up to k = 5: a problem has only 6 samples" in output
    for name in ("codet", "srank", "oracle", "visible tests", "r.json", "r.html", "r.evidence.arrow"):
        assert name in output


def test_the_page_shows_clusters_outputs_tests_and_choices(folder: Path) -> None:
    page = (folder / "r.html").read_text()
    places = [page.index(f">{task_id}</span>") for task_id in ("HumanEval/23", "HumanEval/35", "HumanEval/53")]
    assert places == sorted(places), "problems where methods differ come first"
    assert "some methods right, others wrong" in page
    assert "max_element([5, 3, 9])" in page
    assert "codet right, 1.00" in page
    assert "majority wrong, 0.00" in page
    assert "No model-written test." in page
    assert "http" not in page


def test_another_method_on_the_same_evidence_executes_nothing(folder: Path, again: Any) -> None:
    done = again("--tests", folder / "tests.jsonl", "--methods", "b4", "--json", folder / "b4.json")
    assert "0 of 71 outputs executed" in done.output, done.output
    assert "executing " not in done.output
    result = json.loads((folder / "b4.json").read_text())
    assert list(result["scores"]) == ["random", "b4", "oracle"]


@pytest.mark.slow
def test_without_tests_the_methods_that_need_none_work(folder: Path, again: Any) -> None:
    again("--json", folder / "none.json")
    result = json.loads((folder / "none.json").read_text())
    assert set(result["scores"]) == {*WITHOUT_TESTS, "oracle"}
    assert result["tests"] is None
    assert result["inputs"] == ["examples", "mutation"]
    assert result["visible_tests"]["methods"] == ["majority", "majority-valid", "alphacode"]
    assert result["evidence"]["calls"] > 0


@pytest.mark.slow
def test_inputs_come_from_functions_that_a_model_wrote(folder: Path, again: Any) -> None:
    functions = {
        "HumanEval/53": ["    return [(1, 2), (0, 0), (5, -5)]\n"],
        "HumanEval/23": ["    return [('',), ('abc',)]\n", "    while True:\n        pass\n"],
        "HumanEval/45": ["    import os\n    os.system('touch /tmp/evidence-of-escape')\n    return [(1, 2)]\n"],
        "HumanEval/999": ["    return []\n"],
    }
    generators = write_rows(folder / "generators.jsonl", functions)
    done = again("--tests", folder / "tests.jsonl", "--generators", generators, "--json", folder / "g.json")
    result = json.loads((folder / "g.json").read_text())
    evidence = result["evidence"]
    assert result["inputs"] == ["tests", "generator"]
    assert result["generators"] == str(generators)
    assert (evidence["generators"], evidence["generators_failed"]) == (4, 1)
    assert evidence["inputs_by_source"] == {"tests": 12, "generator": 4}
    assert evidence["clusters_by_source"]["generator"] > 0
    assert "inputs from generator: 4, " in done.output
    assert "1 of 4 functions that a model wrote returned no input" in done.output
    assert "1 rows are of problems that humaneval does not have" in done.output
    assert not Path("/tmp/evidence-of-escape").exists()


def failure(*args: object) -> str:
    """Return the one line of an error."""
    done = call("rerank", *args)
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("evalkit: ")]
    return line


def test_unknown_names_are_errors_that_list_the_known_ones(tmp_path: Path) -> None:
    samples = write_samples(tmp_path)
    assert "--methods: 'best' is unknown, expected some of random, majority," in failure(samples, "--methods", "best")
    assert "--inputs: 'x' is unknown, expected some of tests, examples" in failure(samples, "--inputs", "x")
    assert "--generators FILE need each other" in failure(samples, "--inputs", "generator")
    assert "--generators FILE need each other" in failure(samples, "--inputs", "examples", "--generators", samples)
    assert "task 'x' is unknown; expected one of humaneval" in failure(samples, "--tasks", "x")
    assert "codet needs model-written tests; add --tests FILE" in failure(samples, "--methods", "codet,random")
    done = call("rerank", samples, "--tasks", "humaneval,mbpp")
    assert done.exit_code == 2
    assert "expected one benchmark, found humaneval, mbpp" in done.output


def test_samples_of_different_prompts_are_refused(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", COMPLETIONS, prompt="one")
    second = write_rows(tmp_path / "b.jsonl", COMPLETIONS, prompt="two")
    line = failure(first, second, "--json", tmp_path / "r.json")
    assert "b.jsonl line 1: the prompt of HumanEval/53 differs from that at" in line
    assert not (tmp_path / "r.json").exists()


def test_files_without_a_valid_test_or_of_other_problems_are_refused(tmp_path: Path) -> None:
    samples = write_samples(tmp_path)
    tests = write_lines(tmp_path / "t.jsonl", {"task_id": "HumanEval/53", "completion": "add(1, 2 =="})
    assert (
        "t.jsonl: holds no valid test of these 5 problems in 1 texts; expected texts that follow 'assert '"
        in failure(samples, "--tests", tests)
    )
    other = write_lines(tmp_path / "o.jsonl", {"task_id": "Other/5x", "completion": "    return 1\n"})
    assert "task_id 'Other/5x' is not of humaneval" in failure(other)
    assert "is an input" in failure(samples, "--json", samples)
    assert "no such file" in failure(tmp_path / "missing.jsonl")


def test_no_input_at_all_is_an_error(tmp_path: Path) -> None:
    samples = write_lines(tmp_path / "s.jsonl", {"task_id": "HumanEval/53", "completion": "    return x + y\n"})
    line = failure(samples, "--visible-tests", "hidden", "--json", tmp_path / "r.json")
    assert "--inputs examples,mutation: no problem has an input" in line


def test_a_ranker_in_a_file_is_added_to_the_methods_that_are_named(folder: Path, again: Any) -> None:
    (folder / "first.py").write_text(
        "from evalkit.rerank.ranking import Ranking\n\n\ndef rank(evidence):\n"
        "    return Ranking.of((-float(i), [i]) for i in range(len(evidence.program_N)))\n"
    )
    again("--methods", "majority", "--ranker", folder / "first.py", "--json", folder / "first.json")
    assert list(json.loads((folder / "first.json").read_text())["scores"]) == ["random", "majority", "first", "oracle"]
