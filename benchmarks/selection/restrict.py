"""Smaller evidence: some of the samples, some of the texts of tests.

Nothing is executed. The evidence equals that of a run with fewer samples or texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from evalkit.rerank.call_tests import split_test
from evalkit.rerank.evidence import TaskEvidence


def with_samples(evidence: TaskEvidence, samples: Sequence[int]) -> TaskEvidence:
    """Return the evidence of some samples, in the given order."""
    program_N = evidence.program_N[list(samples)]
    kept = list(dict.fromkeys(program_N.tolist()))  # in the order of their first sample
    place = {program: number for number, program in enumerate(kept)}
    return replace(
        evidence,
        programs=tuple(evidence.programs[program] for program in kept),
        program_N=np.array([place[program] for program in program_N.tolist()], np.int32),
        output_PI=evidence.output_PI[kept],
        is_value_PI=evidence.is_value_PI[kept],
        passed_PT=evidence.passed_PT[kept],
        example_passed_PE=evidence.example_passed_PE[kept],
        texts=tuple(evidence.texts[program] for program in kept) if evidence.texts else (),
        log_prob_N=None if evidence.log_prob_N is None else evidence.log_prob_N[list(samples)],
    )


def with_tests(evidence: TaskEvidence, times: Mapping[str, int], entry_points: tuple[str, ...]) -> TaskEvidence:
    """Return the evidence of some tests, whose calls are the only inputs.

    Args:
        evidence: Evidence with the inputs `tests` only.
        times: How often each kept test was written, by its source.
        entry_points: Names of the functions under test.
    """
    kept = [place for place, test in enumerate(evidence.tests) if test.source in times]
    calls: set[str] = set()
    for place in kept:
        split = split_test(evidence.tests[place].source, entry_points)
        calls |= {split.evaluated} if split.is_call or split.names_value else set()
        calls |= {split.other} if split.other_is_call else set()
    columns = [place for place, call in enumerate(evidence.inputs) if call in calls]
    new_place = {column: number for number, column in enumerate(columns)}
    tests = [evidence.tests[place] for place in kept]
    return replace(
        evidence,
        inputs=tuple(evidence.inputs[column] for column in columns),
        input_sources=tuple(evidence.input_sources[column] for column in columns),
        output_PI=evidence.output_PI[:, columns],
        is_value_PI=evidence.is_value_PI[:, columns],
        tests=tuple(
            replace(
                test,
                times_written=times[test.source],
                input=None if test.input is None else new_place.get(test.input),
            )
            for test in tests
        ),
        passed_PT=evidence.passed_PT[:, kept],
        texts=tuple(tuple(row[column] for column in columns) for row in evidence.texts),
    )
