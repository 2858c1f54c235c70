"""Tests of the settings of relations: what they give for a teacher, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from teacher_dump.engines.registry import require_relations
from teacher_dump.errors import DumpError
from teacher_dump.model.registry import TEACHERS, THE_STACK, ModelShape
from teacher_dump.relations.settings import RelationSettings, relation_request
from tests.teacher_dump.helpers import run_command

SMALL = TEACHERS["smollm2-135m"].shape
"""30 layers; queries of 576 numbers, keys and values of 192."""


def layout_of(shape: ModelShape = SMALL, **more: Any) -> Any:
    return RelationSettings(**{"relations": -1, **more}).layout("teacher", shape, seed=5)


def test_heads_are_slices_of_all_attention_heads() -> None:
    layout = layout_of()
    assert (layout.layer, layout.heads, layout.widths, layout.seed) == (29, 16, (36, 12, 12), 5)
    assert layout.stored_widths == (36, 12, 12)  # no wider than --relations-dims: not projected
    assert layout.bytes_per_position == 16 * (36 + 12 + 12) + 16 * 3
    assert layout_of(relations_heads=48, relations=3).widths == (12, 4, 4)
    assert layout_of(relations_dims=8).stored_widths == (8, 8, 8)
    assert layout_of(TEACHERS["codellama-70b"].shape).widths == (512, 64, 64)
    assert RelationSettings().layout("teacher", SMALL, seed=0) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relations": 30}, "has 30 layers; expected -30 to 29"),
        ({"relations": -31}, "has 30 layers"),
        ({"relations_heads": 9}, "expected a divisor of 192"),
        ({"relations_rows": 0.0}, "expected above 0, at most 1"),
        ({"relations_rows": 1.5}, "expected above 0, at most 1"),
        ({"relations_dims": 0}, "relations_dims: found 0, expected at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DumpError, match=message):
        layout_of(**change)


def test_an_engine_without_vectors_is_refused_by_name() -> None:
    require_relations("vllm", RelationSettings())
    require_relations("transformers", RelationSettings(relations=0))
    with pytest.raises(DumpError, match=r"--relations 3: found the engine vLLM.*use --engine transformers"):
        require_relations("vllm", RelationSettings(relations=3))


def test_a_teacher_without_named_heads_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(DumpError, match="found no 'num_attention_heads'"):
        relation_request(RelationSettings(relations=0), tmp_path, seed=0)


def test_the_plan_states_the_bytes_before_anything_is_loaded() -> None:
    arguments = [
        "--model",
        "smollm2-135m",
        "--data",
        THE_STACK,
        "--max-tokens",
        1_000_000,
        "--engine",
        "transformers",
        "--plan",
    ]
    plain = json.loads(run_command(*arguments, "--json").stdout)
    more = ["--relations", 20, "--relations-rows", 0.25]
    found = json.loads(run_command(*arguments, *more, "--json").stdout)
    assert "relation_bytes_per_token" not in plain
    assert found["relation_bytes_per_token"] == 252.0  # (16 x 60 + 48) / 4
    assert found["bytes"] - plain["bytes"] == 252_000_000
    text = run_command(*arguments, *more).stdout
    assert "16 heads x (36 + 12 + 12 codes + 3 scales) = 1,008 bytes, x 0.25 of the documents = 252.0 bytes" in text
