"""The evidence of one problem: counts and samples of programs."""

from __future__ import annotations

import numpy as np

from evalkit.rerank.evidence import ModelTest, TaskEvidence


def evidence() -> TaskEvidence:
    return TaskEvidence(
        task_id="t/0",
        programs=("a", "b"),
        program_N=np.array([0, 1, 0], np.int32),
        inputs=("f(1)",),
        input_sources=("tests",),
        output_PI=np.array([[0], [1]]),
        is_value_PI=np.array([[True], [True]]),
        tests=(ModelTest(source="assert f(1) == 2", times_written=3, input=0),),
        passed_PT=np.array([[True], [False]]),
        example_passed_PE=np.empty((2, 0), np.bool_),
    )


def test_programs_count_their_samples_and_name_them() -> None:
    assert evidence().count_P.tolist() == [2, 1]
    assert evidence().times_T.tolist() == [3]
    assert evidence().samples_of(np.array([True, False])) == (0, 2)
