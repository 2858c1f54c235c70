"""Tests of what a store does not try again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from shards.errors import IncompleteCacheError, ShardError, StoreError
from shards.storage.final_errors import final_error


class Reply(Exception):
    """An error of a web server's reply, as aiohttp (`status`) or httpx (`response`) raise it."""

    def __init__(self, *, status: int | None = None, response: object = None) -> None:
        super().__init__("first line\nsecond line")
        self.status, self.response = status, response


RepositoryNotFoundError = type("RepositoryNotFoundError", (OSError,), {})


def found(error: Exception) -> ShardError | None:
    return final_error("s3://bucket", "file", "s3://bucket/file", error)


@pytest.mark.parametrize("number", [401, 403])
def test_a_refusal_says_to_check_the_access(number: int) -> None:
    for error in (Reply(status=number), Reply(response=SimpleNamespace(status_code=number)), PermissionError()):
        assert isinstance(found(error), StoreError)
        assert "check your access" in str(found(error))
        assert "\n" not in str(found(error))


@pytest.mark.parametrize("error", [Reply(status=500), Reply(status=429), Reply(), OSError("reset"), TimeoutError()])
def test_what_may_succeed_later_is_tried_again(error: Exception) -> None:
    assert found(error) is None


def test_a_bad_request_is_final() -> None:
    assert "the server refuses this" in str(found(Reply(response=SimpleNamespace(status_code=400))))


def test_a_missing_file_is_not_a_missing_repository() -> None:
    assert isinstance(found(FileNotFoundError("file")), IncompleteCacheError)
    error = FileNotFoundError("file")
    error.__cause__ = FileNotFoundError()
    error.__cause__.__cause__ = RepositoryNotFoundError()
    assert "found no such repository" in str(found(error))
