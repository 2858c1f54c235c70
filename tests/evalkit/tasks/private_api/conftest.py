"""The default build, once for all tests of this folder."""

from __future__ import annotations

import pytest

from evalkit.tasks.private_api.benchmark import DEFAULT_SEED, PrivateApiBuild, build_private_api


@pytest.fixture(scope="session")
def default_build(tmp_path_factory: pytest.TempPathFactory) -> PrivateApiBuild:
    return build_private_api(tmp_path_factory.mktemp("private-api") / "build", seed=DEFAULT_SEED)
