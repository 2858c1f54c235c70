"""Collection of evidence: equal to a slow reference, resumed, and unmoved by hostile programs and hidden tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import EvalError
from evalkit.rerank.call_output import CallOutput
from evalkit.rerank.collect import EVIDENCE_LIMITS, Collection, collect, hopeless_samples
from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.model_tests import WrittenTest
from evalkit.rerank.store import EvidenceStore, program_digest
from evalkit.rerank.task_plan import EvidenceSettings
from evalkit.samples.base import Sample
from evalkit.sandbox.execute import CallLimits
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Problem

LIMITS = replace(EVIDENCE_LIMITS, most_timeouts=2)
DOCSTRING = '    """ Add one. f(1) ==> 2; and\n    f([1]) ==> 3 """\n'
BODIES = [
    "return x + 1", "return 2", "return [x]", "return x + 1  # again", "raise KeyError(x)", "return (", "",
    "while True: pass", "print('flood' * 10 ** 6)\n    return 2", "return str(x)",
    "import sys\n    sys.exit()", "return 2.0",
]  # fmt: skip
ASSERTS = [
    "f(1) == 2", "f(2) == 3", "f(2) == len('abc')", "not f(0)", "f(1) == f(1)", "any(x == 1 for x in f(1))",
    "f('a') == 2", "f(1) is None", "f(1) in (2, '1')", "abs(f(1) - 2) < 0.1", "missing(f(1))",
    "f(1) == missing", "f(1)[0] == 1",
]  # fmt: skip


class Callbacks:
    """Record of the progress."""

    def __init__(self) -> None:
        self.total, self.done, self.is_open = 0, 0, False
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, what: str, total: int) -> None:
        self.total, self.is_open = total, True

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        self.done += steps

    def stop(self) -> None:
        self.is_open = False


def problem(number: int) -> Problem:
    return Problem(
        task_id=f"Toy/{number}",
        prompt=f"def f(x):\n{DOCSTRING}",
        entry_points=("f",),
        prelude="",
        test=f"assert f(1) == {number}",
        reference="",
    )


def samples_of(number: int, bodies: Sequence[str]) -> list[Sample]:
    return [
        Sample(task_id=f"Toy/{number}", index=index, completion=f"    {body}\n" if body else "")
        for index, body in enumerate(bodies)
    ]


def written(asserts: Sequence[str]) -> list[WrittenTest]:
    return [WrittenTest(source=f"assert {text}", times_written=place + 1) for place, text in enumerate(asserts)]


def collection(
    pool: Pool,
    store: EvidenceStore,
    samples: Mapping[int, Sequence[str]],
    asserts: Sequence[str] = ASSERTS,
    *,
    callbacks: Callbacks | None = None,
    problems: Sequence[Problem] | None = None,
    **settings: Any,
) -> Collection:
    return collect(
        problems or [problem(number) for number in samples],
        [sample for number, bodies in samples.items() for sample in samples_of(number, bodies)],
        {f"Toy/{number}": written(asserts) for number in samples},
        settings=EvidenceSettings(**settings),
        pool=pool,
        store=store,
        callbacks=callbacks or Callbacks(),
    )


def memory(limits: CallLimits = LIMITS) -> EvidenceStore:
    return EvidenceStore(None, limits=limits, note=print)


def passes_alone(program: str, source: str) -> bool:
    """Run one test beside one program, in this process: only for the harmless programs of this file."""
    names: dict[str, Any] = {}
    try:
        exec(program, names)
        exec(source, names)
    except Exception:
        return False
    return True


HARMLESS = [body for body in BODIES if "while" not in body and "exit" not in body and "flood" not in body]


def test_passed_tests_and_outputs_equal_those_of_plain_python(pool: Pool) -> None:
    (evidence,) = collection(pool, memory(), {0: HARMLESS})
    for row, program in enumerate(evidence.programs):
        expected = [passes_alone(program, test.source) for test in evidence.tests]
        assert evidence.passed_PT[row].tolist() == expected, (program, expected)
    values = []
    for program in evidence.programs:
        names: dict[str, Any] = {}
        outputs = []
        for call in evidence.inputs:
            try:
                exec(program, names)
                outputs.append(("value", eval(call, names)))
            except Exception as error:
                outputs.append(("exception", type(error)))
        values.append(outputs)
    for first, row in zip(values, evidence.output_PI, strict=True):
        for second, other in zip(values, evidence.output_PI, strict=True):
            assert [a == b for a, b in zip(first, second, strict=True)] == (row == other).tolist()
    assert ((evidence.output_PI >= 0) == evidence.is_value_PI).all()
    assert [[kind == "value" for kind, _ in outputs] for outputs in values] == evidence.is_value_PI.tolist()


def test_every_sample_has_its_program_and_every_test_its_input(pool: Pool) -> None:
    callbacks = Callbacks()
    made = collection(pool, memory(), {0: BODIES, 1: BODIES[:2] * 3, 2: ["", ""]}, callbacks=callbacks)
    for evidence in made:
        samples = samples_of(
            int(evidence.task_id[-1]), {"0": BODIES, "1": BODIES[:2] * 3, "2": ["", ""]}[evidence.task_id[-1]]
        )
        programs = [sample.program(problem(0)) for sample in samples]
        assert [evidence.programs[place] for place in evidence.program_N] == programs
        assert evidence.example_passed_PE.shape == (len(evidence.programs), 2)
        for test in evidence.tests:
            assert test.input is None or evidence.inputs[test.input] in test.source
        assert all(len(text) <= 100 for row in evidence.texts for text in row)
    counts = made.counts
    assert (counts.tasks, counts.samples, counts.empty_samples, counts.programs) == (3, 20, 3, 15)
    assert counts.distinct_programs == 14
    assert (counts.tests, counts.opaque_tests, counts.outputs_failed) == (3 * len(ASSERTS), 6, 0)
    assert (callbacks.total, callbacks.done, callbacks.is_open) == (20, 20, False)
    assert counts.to_dict()["clusters"] == counts.clusters >= 10


def test_calls_that_ran_into_a_limit_equal_no_other_output(pool: Pool) -> None:
    (evidence,) = collection(
        pool, memory(), {0: ["while True: pass", "while 1: pass", "while True: pass  # text"]}, ["f(1) == 2"]
    )
    assert len({int(code) for code in evidence.output_PI[:, 0]}) == 3
    assert not evidence.is_value_PI.any()
    assert not evidence.passed_PT.any()


def test_short_calls_run_first_and_programs_that_hang_are_named(pool: Pool) -> None:
    bodies = ["return x + 1", "while True: pass", "while len(str(x)) > 3: pass"]
    asserts = [f"f({10**digits}) == 1" for digits in (5, 4, 3, 2, 1, 0)]
    store = memory(replace(EVIDENCE_LIMITS, most_timeouts=1))
    (evidence,) = collection(pool, store, {0: bodies}, asserts, inputs=("tests",))
    assert evidence.is_value_PI[2].tolist() == [False, False, False, True, True, True]
    assert "not run" not in evidence.texts[2][2]
    assert all("not run" in text for text in evidence.texts[2][:2])
    assert hopeless_samples([evidence]) == {"Toy/0": {1}}


@pytest.mark.parametrize(
    ("bodies", "note"),
    [
        (["return 1"] * 50, "1 of 1 problems have equal samples only"),
        (
            ["raise KeyError"] * 3 + ["return ("],
            "1 of 1 problems have no program that returns a value for an input",
        ),
        ([""], "1 of 1 samples are empty"),
    ],
)
def test_equal_and_broken_programs_give_evidence_and_are_said(pool: Pool, bodies: list[str], note: str) -> None:
    callbacks = Callbacks()
    (evidence,) = collection(pool, memory(), {0: bodies}, callbacks=callbacks)
    assert len(evidence.program_N) == len(bodies)
    assert callbacks.notes == [note]
    assert evidence.output_PI.shape == (len(set(bodies)), len(evidence.inputs))


def test_without_tests_there_are_examples_and_mutations(pool: Pool) -> None:
    made = collection(pool, memory(), {0: BODIES[:3]}, [])
    (evidence,) = made
    assert evidence.tests == ()
    assert evidence.input_sources[:2] == ("examples", "examples")
    assert set(evidence.input_sources[2:]) == {"mutation"}
    assert made.counts.tasks_without_tests == 1
    (bare,) = collection(pool, memory(), {0: BODIES[:3]}, [], inputs=("tests",))
    assert (bare.output_PI.shape, bare.passed_PT.shape) == ((3, 0), (3, 0))
    assert bare.example_passed_PE.tolist() == [[True, False], [True, False], [False, False]]


def test_only_what_is_new_is_executed(pool: Pool, tmp_path: Path) -> None:
    def run(samples: dict[int, list[str]], asserts: list[str]) -> tuple[list[TaskEvidence], int]:
        with EvidenceStore(tmp_path / "e.arrow", limits=LIMITS, note=print) as store:
            made = collection(pool, store, samples, asserts, inputs=("tests", "examples"))
            return list(made), made.counts.outputs_executed

    _, first = run({0: HARMLESS[:3]}, ASSERTS[:2])
    again, second = run({0: HARMLESS[:3]}, ASSERTS[:2])
    _, third = run({0: [*HARMLESS[:3], "return 2  # again"]}, ASSERTS[:2])
    _, fourth = run({0: [*HARMLESS[:3], "return 3"]}, ASSERTS[:2])
    more, fifth = run({0: HARMLESS[:3]}, ASSERTS)
    assert (first, second, third) == (9, 0, 0)
    assert fourth == 3
    # New are f(0), f('a') and f(1)[0], two expected expressions, and two opaque tests with two values of f(1) each.
    assert fifth == 3 * 3 + 2 + 2 * 2
    whole = list(collection(pool, memory(), {0: HARMLESS[:3]}, inputs=("tests", "examples")))
    for one, other in zip(more, whole, strict=True):
        assert (one.inputs, one.tests, one.texts) == (other.inputs, other.tests, other.texts)
        assert np.array_equal(one.passed_PT, other.passed_PT)
        assert np.array_equal(one.output_PI, other.output_PI)
    assert again[0].output_PI.shape == (3, 3)


HOSTILE = [
    # equals everything
    "class E(int):\n        __eq__ = lambda s, o: True\n        __hash__ = int.__hash__\n    return E(99)",
    "class E:\n        __eq__ = lambda s, o: True\n        __bool__ = lambda s: True\n    return E()",
    # reads the test from the stack and returns what it expects
    "import sys\n    frame = sys._getframe()\n    while frame:\n        for value in list(frame.f_locals.values()):\n"
    "            if isinstance(value, str) and '==' in value:\n                return eval(value.split('==')[1])\n"
    "        frame = frame.f_back\n    return 99",
    "import inspect\n    for info in inspect.stack():\n        for line in info.code_context or []:\n"
    "            if '==' in line: return eval(line.split('==')[1])\n    return 99",
    # disables the comparison in its own process
    # reads the constants of the code that calls it
    "import sys\n    frame, found = sys._getframe(1), []\n    while frame:\n        found += frame.f_code.co_consts\n"
    "        frame = frame.f_back\n    numbers = [c for c in found if type(c) is int and c != x]\n"
    "    return numbers[0] if numbers else 99",
    "import builtins\n    builtins.AssertionError = type('A', (Exception,), {})\n    return 99",
    "import gc\n    for item in gc.get_objects():\n"
    "        if isinstance(item, dict) and 'expected' in item: return item['expected']\n    return 99",
]


def test_hostile_programs_pass_no_test(pool: Pool) -> None:
    asserts = [
        "f(1) == 2",
        "3 == f(2)",
        "f(4) in [5]",
        "abs(f(1) - 2) < 0.5",
        "sorted(f([2])) == [7]",
        "f(1) == 2 and f(2) == 3",
    ]
    asserts += ["f(5) == len('abcdef')", "f(1)[0] == 1", "isclose(f(1), 2)", "f('a') == 'b', 'text'", "f(1) is True"]
    (evidence,) = collection(pool, memory(), {0: HOSTILE}, asserts)
    assert not evidence.passed_PT.any(), [
        (evidence.programs[row], evidence.tests[column].source) for row, column in np.argwhere(evidence.passed_PT)
    ]
    assert not evidence.example_passed_PE.any()


HOSTILE_TESTS = [
    "f(1) == 2\nwhile True: pass",
    "f(1) == 2\nfor i in range(10**6): print('flood' * 1000)",
    "f(1) == 2\nimport os; os.kill(os.getppid(), 9)",
    "f(1) == 2\nfrom solution import f as g",
    "f(1) == 2\nimport os; os._exit(0)",
    "f(1) == 2\nopen('/tmp/evidence-of-escape', 'w')",
    "f(1) == __import__('os').system('true')",
    "f([0] * 10 ** 10) == 2",
    "f(1) == 2\nf = lambda x: 2",
]


def test_hostile_tests_cost_no_other_test_its_result(pool: Pool) -> None:
    asserts = [*HOSTILE_TESTS, *ASSERTS[:2]]
    (evidence,) = collection(pool, memory(EVIDENCE_LIMITS), {0: ["return x + 1", "return 2"]}, asserts)
    passed = dict(zip([test.source for test in evidence.tests], evidence.passed_PT.T.tolist(), strict=True))
    assert (passed["assert f(1) == 2"], passed["assert f(2) == 3"]) == ([True, True], [True, False])
    assert {source for source, row in passed.items() if any(row)} <= {
        "assert f(1) == 2", "assert f(2) == 3", "assert f(1) == 2\nf = lambda x: 2",
    }  # fmt: skip
    assert not Path("/tmp/evidence-of-escape").exists()


def test_the_benchmarks_own_tests_change_nothing(pool: Pool) -> None:
    changed = replace(problem(0), test="assert f(5) == 'other'", reference="def f(x): return 'other'", prelude="boom")
    both = [next(iter(collection(pool, memory(), {0: HARMLESS}, problems=[one]))) for one in (problem(0), changed)]
    assert both[0].programs == both[1].programs
    for name in ("inputs", "input_sources", "tests", "texts"):
        assert getattr(both[0], name) == getattr(both[1], name)
    for name in ("program_N", "output_PI", "is_value_PI", "passed_PT", "example_passed_PE"):
        assert np.array_equal(getattr(both[0], name), getattr(both[1], name))


def test_inputs_come_from_generators_that_run_in_the_sandbox(pool: Pool) -> None:
    generators = [
        "def generate_inputs():\n    return [(i,) for i in range(5)]",
        "import os\nos._exit(0)",
        "def generate_inputs(): return 3",
    ]
    made = collect(
        [problem(0)],
        samples_of(0, HARMLESS),
        {},
        settings=EvidenceSettings(inputs=("generator",)),
        pool=pool,
        store=memory(),
        callbacks=Callbacks(),
        generators={"Toy/0": generators},
    )
    (evidence,) = made
    assert evidence.inputs == tuple(f"f({number})" for number in range(5))
    assert made.counts.inputs_by_source == {"generator": 5}


def test_generated_inputs_are_calls_of_the_function_and_not_of_its_class(pool: Pool) -> None:
    reference = "class Node:\n    pass\n\ndef f(x):\n    return x\n"
    task = replace(problem(0), prompt="", entry_points=("Node", "f"), reference=reference)
    (evidence,) = collect(
        [task],
        [Sample(task_id="Toy/0", solution=reference)],
        {},
        settings=EvidenceSettings(inputs=("generator",)),
        pool=pool,
        store=memory(),
        callbacks=Callbacks(),
        generators={"Toy/0": ["def generate_inputs():\n    return [(1,), (2,)]"]},
    )
    assert evidence.inputs == ("f(1)", "f(2)")


def test_a_failure_of_the_machine_makes_no_program_hopeless(pool: Pool) -> None:
    store = memory()
    calls = [f"f({number})" for number in range(5)]
    for body, outcome in (("return 1", "infra_error"), ("return 2", "timeout_cpu")):
        (sample,) = samples_of(0, [body])
        for call in calls:
            store.add(program_digest(sample.program(problem(0))), call, CallOutput(outcome))
    asserts = [f"{call} == 1" for call in calls]
    (evidence,) = collection(pool, store, {0: ["return 1", "return 2", "return 1"]}, asserts, inputs=("tests",))
    assert hopeless_samples([evidence]) == {"Toy/0": {1}}
    assert evidence.is_failure_PI.tolist() == [[True] * 5, [False] * 5]
    assert len(set(evidence.output_PI[:, 0].tolist())) == 2
    assert not evidence.is_value_PI.any()


def test_an_unknown_source_is_an_error(pool: Pool) -> None:
    with pytest.raises(EvalError, match="'other' is unknown"):
        collection(pool, memory(), {0: ["return 1"]}, inputs=("other",))


RUN = """
import sys
from pathlib import Path
from evalkit.rerank.store import EvidenceStore
from evalkit.sandbox.pool import Pool
from tests.evalkit.rerank import test_collect as t
with Pool(workers=2) as pool, EvidenceStore(Path(sys.argv[1]), limits=t.LIMITS, note=print) as store:
    print("open", flush=True)
    list(t.collection(pool, store, t.MANY, t.ASSERTS[:2]))
"""
MANY = {number: [f"return x + {place % 7}, {place}, {number}" for place in range(8)] for number in range(12)}


@pytest.mark.slow
def test_a_killed_run_goes_on(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "e.arrow"
    monkeypatch.setattr("evalkit.rerank.store._CHUNK_S", 0.05)
    command = [
        sys.executable,
        "-c",
        RUN.replace("with Pool", "import evalkit.rerank.store as s\ns._CHUNK_S = 0.05\nwith Pool"),
    ]
    run = subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert run.stdout is not None
        assert run.stdout.readline() == b"open\n"
        deadline = time.monotonic() + 120
        while path.stat().st_size < 4000 and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(run.pid, signal.SIGKILL)
    finally:
        run.kill()
        run.wait()
    with EvidenceStore(path, limits=LIMITS, note=print) as store:
        num_stored = len(store)
        assert num_stored > 0
        made = collection(pool, store, MANY, ASSERTS[:2])
        resumed = list(made)
        assert made.counts.outputs == len(store)
        assert made.counts.outputs_executed == made.counts.outputs - num_stored
    with EvidenceStore(path, limits=LIMITS, note=print) as store:
        cached = collection(pool, store, MANY, ASSERTS[:2])
        assert [evidence.texts for evidence in cached] == [evidence.texts for evidence in resumed]
        assert cached.counts.outputs_executed == 0


@pytest.mark.slow
def test_ten_thousand_samples_of_one_task(pool: Pool, tmp_path: Path) -> None:
    bodies = [f"return x + {place % 2500}" + (f"  # {place}" if place >= 2500 else "") for place in range(10_000)]
    with EvidenceStore(tmp_path / "e.arrow", limits=LIMITS, note=print) as store:
        made = collection(pool, store, {0: bodies}, ASSERTS[:4])
        (evidence,) = made
    assert evidence.output_PI.shape == (10_000, len(evidence.inputs))
    assert made.counts.distinct_programs == 2500
    assert evidence.passed_PT[:, 0].sum() == 4
