"""Programs on EvalPlus' inputs: types, time limits and oracles decide as in EvalPlus 0.3.1; no verdict is forged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evalkit.cli import main
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import Verdict
from evalkit.scoring.metrics import summarise
from tests.evalkit.sandbox.evalplus.plus_tasks import write_task

IDENTITY = "def f(x): return x"


NUMPY = "import numpy as np\n"


@pytest.mark.parametrize(
    ("answer", "value", "passes"),
    [
        ("np.float64(x)", 1.5, True),
        ("np.float64(x + 1e-9)", 1.5, False),  # close, but of another type
        ("x + 1e-9", 1.5, True),
        ("x + 1e-4", 1.5, False),
        ("[np.float64(item + 1e-9) for item in x]", [1.5, 2.5], True),  # the list is of the right type
        ("np.array(x)", [1.5, 2.5], False),  # an array has no single truth value
        ("np.array(x)", [1.5], True),
        ("np.array([x])", 1.5, True),
        ("tuple(x)", [1.5, 2.5], False),
        ("type('L', (list,), {})(x)", [1.5, 2.5], True),
        ("type('L', (list,), {})([item + 1e-9 for item in x])", [1.5, 2.5], False),
        ("(item for item in x)", [1.5, 2.5], False),
        ("[x[0], float('nan')]", [1.5, 2.5], False),
        ("[[1.5 + 1e-9]]", [1.5], True),  # numpy.allclose broadcasts
        ("-0.0", 0.0, True),
        ("int(x)", 2.0, True),
        ("__import__('fractions').Fraction(x)", 1.5, True),
        ("__import__('collections').UserList(x)", [1, 2], True),
        ("dict(reversed(x.items()))", {"a": 1, "b": 2}, True),
        ("np.int64(x)", 3, True),
        ("np.bool_(x)", True, True),
        ("x == 3", 1, False),
        ("str(x)", 3, False),
        ("lambda: x", 3, False),
    ],
)
def test_the_type_of_an_answer_decides_as_in_evalplus(
    pool: Pool, tmp_path: Path, answer: str, value: Any, passes: bool
):
    task = write_task(tmp_path, IDENTITY, base=[[value]], plus=[])
    assert pool.check_alone(task.job(f"{NUMPY}def f(x): return {answer}")).passed is passes


def test_the_base_inputs_have_a_verdict_of_their_own(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, IDENTITY, base=[[1], [2]], plus=[[3]])
    verdict = pool.check_alone(task.job("def f(x): return min(x, 2)"))
    assert (verdict.outcome, verdict.base_passed) == ("wrong", True)
    assert verdict.detail == "added input: f(3) gave 2, expected 3"
    verdict = pool.check_alone(task.job("def f(x): return max(x, 2)"))
    assert (verdict.outcome, verdict.base_passed) == ("wrong", False)
    assert pool.check_alone(task.job(IDENTITY)).base_passed is True


def test_scores_of_the_base_inputs_stand_beside_those_of_all():
    verdicts = [
        Verdict(outcome="wrong", base_passed=True),
        Verdict(outcome="wrong", base_passed=False),
        Verdict(outcome="infra_error", base_passed=False),
    ]
    score = summarise({str(place): [verdict] for place, verdict in enumerate(verdicts)}).to_dict()
    assert (score["pass@1"], score["base"]["pass@1"], score["base"]["solved"]) == (0.0, 0.5, 1)
    assert "base" not in summarise({"0": [Verdict(outcome="pass")]}).to_dict()


@pytest.mark.slow
def test_many_slow_calls_pass_and_one_long_call_fails(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, IDENTITY, base=[[0]], plus=[[x] for x in range(40)])
    burn = "import time\ndef burn(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
    verdict = pool.check_alone(task.job(f"{burn}def f(x):\n    burn(0.05)\n    return x"))
    assert verdict.passed, verdict
    assert verdict.cpu_s > 2.0  # a limit of 1 s for all of them would have failed it
    verdict = pool.check_alone(task.job(f"{burn}def f(x):\n    burn(1.5 if x == 20 else 0)\n    return x"))
    assert (verdict.outcome, verdict.base_passed) == ("timeout_cpu", True)
    assert verdict.detail.startswith("a call from f(0) on used 1.")  # the calls before the long one took no time


@pytest.mark.slow
def test_a_call_without_end_costs_a_second(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, IDENTITY, base=[[0]], plus=[])
    for program in ("def f(x):\n    while True: pass", "while True: pass\ndef f(x): return x"):
        verdict = pool.check_alone(task.job(program))
        assert verdict.outcome == "timeout_cpu", verdict
        assert verdict.cpu_s < 4.0


@pytest.mark.slow
def test_a_call_that_sleeps_too_long_fails(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, IDENTITY, base=[[0]], plus=[])
    verdict = pool.check_alone(task.job("import time\ndef f(x):\n    time.sleep(30)\n    return x"))
    assert verdict.outcome == "timeout_wall"
    assert "a call from f(0) on slept for" in verdict.detail


@pytest.mark.slow
def test_a_slow_reference_gives_its_input_more_time(pool: Pool, tmp_path: Path):
    slow = "from time import process_time as t\ndef f(x):\n    end = t() + {}\n    while t() < end: pass\n    return x"
    task = write_task(tmp_path, slow.format("0.4 * (x == 1)"), base=[[0], [1], [2]], plus=[])
    assert pool.check_alone(task.job(slow.format("1.2 * (x == 1)"))).passed
    verdict = pool.check_alone(task.job(slow.format("1.2 * (x == 2)")))
    assert (verdict.outcome, verdict.detail[:16]) == ("timeout_cpu", "a call from f(2)")


@pytest.mark.slow
def test_the_program_cannot_set_the_clock(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, IDENTITY, base=[[0], [1]], plus=[])
    program = """
import time, sys


batches = sys.modules["evalkit.sandbox.evalplus.batches"]


def f(x):
    end = time.process_time() + 1.5
    while time.process_time() < end: pass
    return x
for name in ("monotonic", "process_time_ns", "clock_gettime", "perf_counter"): setattr(time, name, lambda *_: 0.0)
batches.FLUSH_S = 1e9
"""
    assert pool.check_alone(task.job(program)).outcome == "timeout_cpu"


def test_what_the_base_inputs_left_behind_does_not_decide_on_the_added_ones(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, IDENTITY, base=[[1], [2], [3]], plus=[[4], [5], [6]])
    counts = "seen = []\ndef f(x):\n    seen.append(x)\n    return x if len(seen) <= {} else None"
    assert pool.check_alone(task.job(counts.format(3))).passed  # EvalPlus starts a new process for the added inputs
    verdict = pool.check_alone(task.job(counts.format(2)))
    assert (verdict.outcome, verdict.base_passed) == ("wrong", False)


def test_an_answer_is_what_it_was_when_it_was_given(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, "def f(x): return [x]", base=[[x] for x in range(5)], plus=[])
    assert pool.check_alone(task.job("kept = [None]\ndef f(x):\n    kept[0] = x\n    return kept")).passed
    later = (
        "kept = []\ndef f(x):\n    kept.append([x + 1])\n    [one.__setitem__(0, one[0] - 1) for one in kept[:-1]]\n"
    )
    assert not pool.check_alone(task.job(f"{later}    return kept[-1]")).passed


def test_a_program_that_changes_its_arguments_changes_no_other_call(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, "def f(x): return len(x)", base=[[[1, 2]]] * 3, plus=[])
    assert pool.check_alone(task.job("def f(x):\n    n = len(x)\n    x.clear()\n    return n")).passed


def test_what_a_module_function_prints_or_reads_does_not_matter(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, IDENTITY, base=[[1]], plus=[])
    assert pool.check_alone(task.job("print('pass')\ndef f(x):\n    print('{\"ok\": 1}')\n    return x")).passed


@pytest.mark.parametrize(
    "attack",
    [
        "batches.InputBatch.answers = lambda self: b''",
        "batches.InputBatch.answers = lambda self: b'P' + bytes(100)",
        "batches.InputBatch.answers = lambda self: b'{\"ok\": []}'",
        "batches.InputBatch.answers = lambda self: batches.HEAD.pack(b'P', 1 << 31)",
        "batches.InputBatch.answers = lambda self: batches.HEAD.pack(b'P', 1) + b'N'",
        "batches.InputBatch.answers = lambda self: batches.HEAD.pack(b'J', 9) + b'{\"ok\": 1}'",
        "batches.InputBatch.answers = lambda self: batches.HEAD.pack(b'J', 4) + b'\\xff\\xfe00'",
        "batches.InputBatch.answers = lambda self: (batches.HEAD.pack(b'P', 1) + b'N') * 9",
        "batches.InputBatch.rewritten = lambda self, places: b'{\"ok\": []}'",
        "batches.InputBatch.rewritten = lambda self, places: b'['* 100000",
        """batches.InputBatch.rewritten = lambda *_: b'{"ok":[{"ok":{"t":"numpy array","v":["|O",[99999],[]]}}]}'""",
        "batches.snapshot = lambda value: b''",
        "import marshal; marshal.dumps = lambda *_: b''",
        "import os; os.close(3)",
    ],
)
def test_a_program_that_rewrites_its_side_forges_nothing(pool: Pool, tmp_path: Path, attack: str):
    task = write_task(tmp_path, "def f(x): return 2 * x", base=[[1], [2]], plus=[[3]])
    start = f"import sys\nbatches = sys.modules['evalkit.sandbox.evalplus.batches']\n{attack}\n"
    verdict = pool.check_alone(task.job(f"{start}def f(x): return None"))
    assert verdict.outcome in ("wrong", "exited", "exception"), verdict
    assert pool.check_alone(task.job("def f(x): return 2 * x")).passed  # the checker goes on


def test_expected_values_are_not_in_the_programs_reach(pool: Pool, tmp_path: Path):
    secret = 987654321987
    task = write_task(tmp_path, f"def f(x): return {secret}", base=[[1], [2]], plus=[])
    spy = "import gc\ndef f(x):\n    return next((o for o in gc.get_objects() if o == SECRET), None)"
    assert not pool.check_alone(task.job(spy.replace("SECRET", f"{secret // 3} * 3"))).passed


def test_answers_of_slow_or_long_references_are_compared_by_digest(pool: Pool, tmp_path: Path):
    task = write_task(tmp_path, "def f(x): return list(range(x))", base=[[100_000]], plus=[[3]])
    assert pool.check_alone(task.job("def f(x): return [*range(x)]")).passed
    verdict = pool.check_alone(task.job("def f(x): return [*range(x - 1), 0]"))
    assert verdict.outcome == "wrong"
    assert verdict.detail.startswith("f(100000) gave [0, 1, 2")


def test_an_object_without_plain_form_counts_as_present(pool: Pool, tmp_path: Path):
    task = write_task(
        tmp_path, "def check_str(x): return True", base=[["a"]], plus=[], name="check_str", task_id="Mbpp/1"
    )
    assert pool.check_alone(task.job("def check_str(x): return object()")).passed
    assert pool.check_alone(task.job("import re\ndef check_str(x): return re.match('a', x)")).passed
    assert not pool.check_alone(task.job("def check_str(x): return None")).passed


ROWS = [
    (
        "humaneval+",
        "HumanEval/4",
        "import numpy as np\ndef mean_absolute_deviation(numbers):\n    m = np.mean(numbers)\n"
        "    return np.mean(np.abs(np.array(numbers, dtype=float) - m))\n",
        (True, False),
    ),
    (
        "mbpp+",
        "Mbpp/2",
        "import numpy as np\ndef similar_elements(a, b):\n    return np.intersect1d(a, b)\n",
        (True, True),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("benchmark", "task_id", "solution", "right"), ROWS)
def test_numpy_answers_on_the_real_tasks(tmp_path: Path, shared_data: Path, benchmark, task_id, solution, right):
    samples, result = tmp_path / "s.jsonl", tmp_path / "score.json"
    samples.write_text(json.dumps({"task_id": task_id, "solution": solution}) + "\n")
    command = ["score", "--samples", samples, "--tasks", benchmark, "--data-dir", shared_data, "--json", result]
    done = CliRunner().invoke(main, [str(part) for part in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (verdict,) = json.loads(result.read_text())["tasks"][task_id]
    assert (verdict["base_passed"], verdict["passed"]) == right
