"""A sandbox for the tests of benchmark scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evalkit.sandbox.pool import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    with Pool(workers=2) as checkers:
        yield checkers
