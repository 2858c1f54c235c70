"""One thread for every test and for the processes that tests start, and the order of files when tests run in parallel.

Every command and torch read `OMP_NUM_THREADS`: with one thread results are exact to the bit. A test that needs more
threads sets it. Such threads sleep while they wait for each other: the default, spinning, takes the core that another
worker needs (`python -m benchmarks.waiting_threads`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shards.runtime.imports import quicken_imports

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
quicken_imports()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the workers of `-n auto`: one more than cores, because a fifth of the time is spent waiting."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return the scheduler of `--dist loadfile`: a file runs in one worker, and files that start vLLM in two workers.

    An engine takes gigabytes of memory, so that at most two run at once. One of the two workers runs the tests that
    kill engines, which take as long as all the others and wait much.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class TwoEnginesAtOnce(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            if file.endswith(_KILLS_ENGINES) or not _starts_engine(config.rootpath / file):
                return file
            return "engines"

    config.option.loadscopereorder = False  # else files with few tests, the longest ones, would be the last
    return TwoEnginesAtOnce(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, put files that start vLLM first, then files with slow tests: the short ones fill the end."""
    if not hasattr(config, "workerinput"):
        return
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not _starts_engine(item.path), item.path not in slow_files))


def _starts_engine(file: Path) -> bool:
    if file not in _ENGINE_FILES:
        _ENGINE_FILES[file] = "mark.vllm" in file.read_text(encoding="utf-8")
    return _ENGINE_FILES[file]


_KILLS_ENGINES = "test_process_life.py"
_ENGINE_FILES: dict[Path, bool] = {}
"""Whether a test file starts vLLM, by path."""
