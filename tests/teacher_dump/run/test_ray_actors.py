"""Tests of actors without a cluster; `test_ray_launcher.py` starts one."""

from __future__ import annotations

import pytest

import shards
from teacher_dump.run.ray_actors import check_address


def test_an_unreachable_cluster_is_one_line() -> None:
    with pytest.raises(shards.ShardError, match=r"--ray 127\.0\.0\.1:1: .*expected the address of a running cluster"):
        check_address("127.0.0.1:1")
    for address in ("local", "auto", "ray://somewhere:10001"):
        check_address(address)
