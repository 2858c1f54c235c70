"""Tests of a worker's share: the shares of N workers hold each task once."""

from __future__ import annotations

import pytest

from teacher_dump.errors import DumpError
from teacher_dump.tasks.share import Share


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 20])
def test_the_shares_of_all_workers_hold_each_task_once(workers: int) -> None:
    shares = [Share.parse(f"{index}/{workers}").of_tasks(range(13)) for index in range(1, workers + 1)]
    assert sorted(task for share in shares for task in share) == list(range(13))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""])
def test_another_form_is_an_error(text: str) -> None:
    with pytest.raises(DumpError, match="expected I/N with I from 1 to N"):
        Share.parse(text)
