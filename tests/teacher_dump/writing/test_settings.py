"""Tests of the settings of writing."""

from __future__ import annotations

from typing import Any

import pytest

from teacher_dump.errors import DumpError
from teacher_dump.writing.settings import WritingSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 0}, "samples: found 0"),
        ({"samples": 10**6}, "at most 100,000"),
        ({"max_new_tokens": 0}, "max_new_tokens: found 0"),
        ({"answers_per_task": 0}, "answers_per_task: found 0"),
        ({"writer_tensor_parallel_size": 0}, "writer_tensor_parallel_size: found 0"),
        ({"temperature": -0.1}, "temperature: found -0.1"),
        ({"temperature": float("nan")}, "temperature: found nan"),
        ({"top_p": 0.0}, "top_p: found 0"),
        ({"top_p": 1.1}, "top_p: found 1.1"),
        ({"temperature": 0.0, "samples": 2}, "all responses to a prompt are the same"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DumpError, match=message):
        WritingSettings(prompts="p", **values)


@pytest.mark.parametrize("values", [{"writer": "x"}, {"responses_only": True}])
def test_settings_that_need_prompts_say_so(values: dict[str, Any]) -> None:
    with pytest.raises(DumpError, match="give --prompts"):
        WritingSettings(**values)


def test_the_teachers_parallelism_does_not_apply_to_another_writer() -> None:
    assert WritingSettings(prompts="p").parallel_sizes(4, 2) == (4, 2)
    assert WritingSettings(prompts="p", writer="w").parallel_sizes(4, 2) == (1, 1)
    assert WritingSettings(prompts="p", writer="w", writer_tensor_parallel_size=2).parallel_sizes(4, 2) == (2, 1)
