"""The vLLM column of docs/architectures.md. A benchmark measures it, so that no module of the package is mirrored."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.architectures import read_page
from benchmarks.architectures_vllm import ABSENT, LESS_EXACT, NO_START, NOT_RUN, REFUSED, RIGHT, refusal
from tests.exhaustive import EXHAUSTIVE

MEASURED = ("qwen2:sliding", "mixtral", "nanochat", *(("llama", "gemma2", "granite", "gpt_neox") if EXHAUSTIVE else ()))
"""One row of a kind: sliding windows, experts, absent; and plain, soft-capped, scaled, partial rotary. Records of plain
and soft-capped models are in `test_vllm_plugin.py`, too."""


def test_every_row_has_a_cell_and_none_is_wrong() -> None:
    cells = {name: row.vllm for name, row in read_page().items()}
    assert all(
        cell.split(":")[0] in (RIGHT, LESS_EXACT, ABSENT, NO_START, REFUSED, NOT_RUN) for cell in cells.values()
    ), cells


def test_a_refusal_is_told_from_a_failure_to_start() -> None:
    assert refusal("vLLM has no BertLMHeadModel; use --engine transformers") == ABSENT
    failed = "vllm: the engine did not start (ValueError: a|b); its whole output is in /tmp/x.log; change the setting"
    assert refusal(failed) == f"{NO_START}: ValueError: a/b"
    assert (
        refusal("two runs of one prompt differ, by 1; expected at most 0")
        == f"{REFUSED}: two runs of one prompt differ, by 1"
    )


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_column_says_what_is_measured(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.architectures_vllm", "--cache", str(tmp_path), *MEASURED],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    page = read_page()
    assert done.stdout.splitlines() == [f"{name}: {page[name].vllm}" for name in MEASURED]
