"""Tests of the distance between rows and problems."""

from __future__ import annotations

from benchmarks.final_table.nearest import nearest
from teacher_dump.corpus.filters.benchmark_texts import BenchmarkTexts, ProblemTexts
from teacher_dump.corpus.filters.decontamination import ContaminationIndex

PROMPT = "Write a function that returns the sum of the squares of all even numbers in a list of integers"


def test_the_nearest_row_is_named_with_its_share() -> None:
    problem = ProblemTexts(name="mbpp/11", prompt=PROMPT, solution="", test="")
    index = ContaminationIndex([BenchmarkTexts(name="mbpp", source="made up", sha256="", problems=(problem,))])
    words = PROMPT.split()
    rows = [("601", "nothing in common"), ("602", " ".join(words[:11])), ("603", " ".join(words[:9]))]
    found = nearest(index, iter(rows))
    assert found["rows"] == 3
    assert found["nearest"][0]["path"] == "602"
    assert found["nearest"][0]["share"] == 4 / 12
    assert found["nearest"][0]["overlap"].startswith("prompt of mbpp/11: 33%")
    assert found["at_least"] == {"25%": 1, "50%": 0}


def test_rows_without_a_common_ngram_have_no_nearest_problem() -> None:
    index = ContaminationIndex([])
    assert nearest(index, iter([("601", "x = 1")])) == {"rows": 1, "at_least": {"25%": 0, "50%": 0}, "nearest": []}
