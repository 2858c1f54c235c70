"""Random evidence for property tests, and evidence of given matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from evalkit.rerank.evidence import ModelTest, TaskEvidence


def evidence_of(
    *,
    outputs: Sequence[Sequence[int]],
    passed: Sequence[Sequence[bool]],
    samples: Sequence[int],
    times: Sequence[int] | None = None,
    examples: Sequence[Sequence[bool]] | None = None,
) -> TaskEvidence:
    """Return evidence of P programs; outputs below 0 are exceptions. Every test has an input if there is any."""
    num_programs, num_inputs, num_tests = len(outputs), len(outputs[0]), len(passed[0])
    output_PI = np.array(outputs, np.int64).reshape(num_programs, num_inputs)
    tests = tuple(
        ModelTest(
            source=f"assert f({test}) == {test}",
            times_written=times[test] if times else 1,
            input=test % num_inputs if num_inputs else None,
        )
        for test in range(num_tests)
    )
    return TaskEvidence(
        task_id="toy/0",
        programs=tuple(f"def f(x): return {number}" for number in range(num_programs)),
        program_N=np.array(samples, np.int32),
        inputs=tuple(f"f({number})" for number in range(num_inputs)),
        input_sources=("tests",) * num_inputs,
        output_PI=output_PI,
        is_value_PI=output_PI >= 0,
        tests=tests,
        passed_PT=np.array(passed, np.bool_).reshape(num_programs, num_tests),
        example_passed_PE=np.array(examples if examples is not None else [[]] * num_programs, np.bool_).reshape(
            num_programs, -1
        ),
    )


@st.composite
def evidences(draw: st.DrawFn) -> TaskEvidence:
    """Return random evidence: few programs, inputs and tests, so that rows are often equal."""
    num_programs = draw(st.integers(1, 6))
    num_inputs, num_tests, num_examples = draw(st.integers(0, 4)), draw(st.integers(0, 5)), draw(st.integers(0, 2))

    def matrix(width: int, items: st.SearchStrategy[object]) -> list[list[object]]:
        row = st.lists(items, min_size=width, max_size=width)
        return draw(st.lists(row, min_size=num_programs, max_size=num_programs))

    more = draw(st.lists(st.integers(0, num_programs - 1), max_size=8))
    return evidence_of(
        outputs=matrix(num_inputs, st.integers(-2, 2)),  # type: ignore[arg-type]  # integers
        passed=matrix(num_tests, st.booleans()),  # type: ignore[arg-type]  # booleans
        samples=[*range(num_programs), *more],
        times=draw(st.lists(st.integers(1, 4), min_size=num_tests, max_size=num_tests)),
        examples=matrix(num_examples, st.booleans()),  # type: ignore[arg-type]  # booleans
    )
