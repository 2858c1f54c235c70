"""The table of architectures is true: each cell is measured again, and nothing differs without a refusal."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.architectures import REFUSED, Findings, read_page, survey
from benchmarks.tiny_models import MODELS

FAST = (
    "llama",
    "gpt2:layer-scaled",
    "bloom",
    "granite",
    "gemma2",
    "qwen2:sliding",
    "smollm3",
    "qwen2_moe",
    "gpt_oss",
    "lfm2",
    "bert",
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # tiny models gain nothing from more


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_the_table_says_what_is_measured(name: str) -> None:
    # `survey` raises for a result that is silently different.
    assert kinds(survey(name)) == kinds(read_page()[name])


def test_the_table_has_a_row_for_each_architecture() -> None:
    assert list(read_page()) == list(MODELS)
    assert len({name.split(":")[0] for name in MODELS}) >= 45


def kinds(found: Findings) -> tuple[str, ...]:
    """Return the cells of a row; of a refusal only that it is one, as its numbers depend on the machine."""
    return tuple(REFUSED if cell.startswith(REFUSED) else cell for cell in dataclasses.astuple(found))
