"""What is executed for one problem: what a protocol shows counts, what it hides is not read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.model_tests import WrittenTest
from evalkit.rerank.task_plan import EvidenceSettings, clusters_by_source, plan_task
from evalkit.samples.base import Sample
from evalkit.tasks.base import Problem

PROMPT = 'def g(x):\n    return x\n\ndef f(x):\n    """ f(1) ==> 2 """\n'
PROBLEM = Problem(
    task_id="Toy/0",
    prompt=PROMPT,
    shown_tests=("assert f(7) == 8",),
    entry_points=("f",),
    prelude="",
    test="assert f(1000) == 1001",
    reference="def f(x):\n    return x + 1\n",
)
SAMPLES = [
    Sample(task_id="Toy/0", index=i, completion=text)
    for i, text in enumerate(["    return 1", "    return 2", "    return 1"])
]
TESTS = [
    WrittenTest(source="assert f(3) == 4", times_written=2),
    WrittenTest(source="assert f(4) == f(5)", times_written=1),
    WrittenTest(source="assert f(6) == g(7)", times_written=1),
    WrittenTest(source="assert any(f(8))", times_written=1),
]
SEEN = EvidenceSettings(inputs=("tests", "examples"), shown_tests=True)


def test_calls_of_tests_and_of_what_is_shown_are_inputs() -> None:
    plan = plan_task(PROBLEM, SAMPLES, TESTS, (), SEEN)
    sources = {
        "f(3)": "tests",
        "f(4)": "tests",
        "f(5)": "tests",
        "f(6)": "tests",
        "f(1)": "examples",
        "f(7)": "examples",
    }
    assert plan.inputs == sources
    assert [test.source for test in plan.examples] == ["assert f(1) == 2", "assert f(7) == 8"]
    assert plan.helper_calls == ("g(7)",)
    assert plan.helper.startswith(PROMPT)
    assert plan.programs == (PROMPT + "    return 1", PROMPT + "    return 2")
    assert plan.program_N.tolist() == [0, 1, 0]
    assert plan.calls == (*sources, "f(8)")


def test_what_a_protocol_does_not_show_is_not_read() -> None:
    hidden = EvidenceSettings(inputs=("tests", "examples"), docstring_examples=False)
    plan = plan_task(PROBLEM, SAMPLES, [], (), hidden)
    assert (plan.inputs, plan.examples, plan.calls) == ({}, (), ())


def test_the_benchmarks_own_tests_are_not_read() -> None:
    settings = replace(SEEN, inputs=("tests", "examples", "mutation"))
    changed = replace(PROBLEM, test="raise SystemExit", reference="", prelude="boom", inputs={"sha256": "x"})
    plan, other = (plan_task(problem, SAMPLES, TESTS, (), settings) for problem in (PROBLEM, changed))
    assert (plan.calls, plan.helper_calls, plan.digests, plan.tests, plan.examples) == (
        other.calls,
        other.helper_calls,
        other.digests,
        other.tests,
        other.examples,
    )
    assert "1000" not in " ".join(plan.calls)


def test_programs_that_differ_in_layout_are_apart_but_have_one_digest() -> None:
    samples = [
        Sample(task_id="Toy/0", index=i, completion=f"    return 1{tail}") for i, tail in enumerate(["", "  # text"])
    ]
    plan = plan_task(PROBLEM, samples, [], (), SEEN)
    assert len(plan.programs) == 2
    assert len(set(plan.digests)) == 1


def test_clusters_of_each_source_are_counted() -> None:
    evidence = TaskEvidence(
        task_id="Toy/0",
        programs=("a", "b", "c"),
        program_N=np.array([0, 1, 2], np.int32),
        inputs=("f(1)", "f(2)", "f(3)"),
        input_sources=("tests", "mutation", "tests"),
        output_PI=np.array([[0, 1, 2], [0, 3, 2], [1, 3, 2]]),
        is_value_PI=np.ones((3, 3), np.bool_),
        tests=(),
        passed_PT=np.empty((3, 0), np.bool_),
        example_passed_PE=np.empty((3, 0), np.bool_),
    )
    assert clusters_by_source(evidence) == {"tests": 2, "mutation": 2}
