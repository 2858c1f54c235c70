"""Tests of the cost estimate: arithmetic without a GPU, a download or a model in memory."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shards import ShardError
from teacher_dump.cli import main
from teacher_dump.config import DumpConfig
from teacher_dump.cost import estimate, flop_per_token, plan_lines
from teacher_dump.gpu_cost import PREFILL_SHARES, parse_machine
from teacher_dump.model.registry import TEACHERS, THE_STACK, ModelShape
from teacher_dump.model.teachers import count_parameters
from tests.teacher_dump.model.test_experts import QWEN3


def plan(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["--plan", "--json", *arguments])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_a_plan_needs_neither_network_nor_gpu_nor_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("teacher_dump.model.teachers.resolve", refuse)
    found = plan("--model", "codellama-70b", "--machine", "8xH100")
    assert found["tokens"] == pytest.approx(64.3e9 / 3.37, rel=1e-6)
    assert found["tasks"] == -(-found["tokens"] // 1_000_000)
    assert (found["workers"], found["gpus_per_worker"]) == (2, 4)


def test_gpu_hours_are_the_flop_over_what_the_gpus_do() -> None:
    found = plan("--model", "codellama-70b", "--machine", "16xH100", "--max-tokens", "1000000000")
    # Every weight but the input table is multiplied once per token; attention sees half a window on average.
    flop = 2 * (68_976_910_336 - 32_016 * 8192) + 4 * 80 * 8192 * 512
    assert found["flop_per_token"] == flop
    for facts, use in zip(found["range"], PREFILL_SHARES, strict=True):
        assert facts["gpu_hours"] == pytest.approx(1e9 * flop / (989e12 * use) / 3600, rel=2e-3)
        assert facts["hours"] == pytest.approx(facts["gpu_hours"] / 16, rel=2e-2)


def test_published_parameters_are_those_of_the_published_shape() -> None:
    shape = TEACHERS["codellama-70b"].shape
    width, inner = shape.hidden_size, 28_672
    layer = 2 * width * width + 2 * width * shape.kv_heads * shape.head_dim + 3 * width * inner + 2 * width
    assert shape.layers * layer + 2 * shape.vocab_size * width + width == TEACHERS["codellama-70b"].parameters


def test_experts_that_a_token_does_not_use_cost_nothing() -> None:
    parameters, shape = 30_532_122_624, ModelShape.from_config(QWEN3)
    flop, how = flop_per_token(parameters, shape, 1024)
    table = QWEN3["vocab_size"] * QWEN3["hidden_size"]
    used = parameters - 48 * 120 * 3 * 2048 * 768
    assert flop == 2 * (used - table) + 4 * 48 * 32 * 128 * 512
    assert flop == pytest.approx(6.5e9, rel=0.01)
    assert "- 27.179 (48 layers x 120 of 128 experts unused x 3 x 2,048 x 768)) G = 6.08 G" in how
    dense, how = flop_per_token(parameters, ModelShape.from_config({**QWEN3, "num_experts_per_tok": None}), 1024)
    assert dense == flop + 2 * (parameters - used)
    assert "the config names 128 experts, but not which share of the weights a token uses" in how


def test_what_changes_the_machine_changes_the_plan() -> None:
    assert plan("--machine", "8xH200")["gpus_per_worker"] == 2
    assert plan("--machine", "8xH100", "--tensor-parallel-size", "8")["workers"] == 1
    assert plan("--machine", "8xA100")["tokens_per_s"] < plan("--machine", "8xH100")["tokens_per_s"] / 3
    half = plan("--machine", "8xH100", "--max-documents", str(12_962_249 // 2))
    assert half["tokens"] == pytest.approx(64.3e9 / 3.37 / 2, rel=1e-3)
    with pytest.raises(ShardError, match="138 GB of weights"):
        estimate(DumpConfig(model="codellama-70b", data=THE_STACK, out=Path("x"), max_tokens=1), "2xH100")


@pytest.mark.parametrize("text", ["8xX900", "0xH100", "", "8x"])
def test_an_unknown_machine_is_named(text: str) -> None:
    with pytest.raises(ShardError, match="as in 8xH100; known: A100"):
        parse_machine(text)


def test_a_folder_is_planned_from_its_headers(tiny_teacher: Path, corpus_folder: Path) -> None:
    found = plan("--model", str(tiny_teacher), "--data", str(corpus_folder), "--machine", "A100")
    about = json.loads((tiny_teacher / "config.json").read_bytes())
    shape = ModelShape.from_config(about)
    assert (shape.kv_heads, shape.head_dim, shape.tied) == (1, 32, True)
    attention = 4 * 2 * 64 * 1024 / 2
    assert found["flop_per_token"] == 2 * count_parameters(tiny_teacher) + attention
    small = plan("--model", "smollm2-135m", "--data", str(corpus_folder), "--max-tokens", "300")
    assert (small["tokens"], small["tasks"]) == (300, 1)
    assert small["seconds"] > 0


def test_a_plan_states_that_the_size_of_a_hub_corpus_is_unknown() -> None:
    found = plan("--model", "codellama-70b", "--data", "someone/something")
    assert found["tokens"] is found["bytes"] is None
    assert found["tokens_per_s"] > 0
    assert any("give --max-tokens" in line for line in found["how"])
    assert "not known" in "\n".join(plan_lines(found))


def test_planning_loads_no_engine() -> None:
    program = (
        "import sys; from teacher_dump.cli import main; main(['--plan', '--model', 'codellama-70b'], "
        "standalone_mode=False); print([m for m in ('vllm', 'transformers') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("[]")


def test_the_documented_plan_is_what_the_command_prints() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plan_70b.md").read_text()
    shown = page.split("<!-- plan -->\n")[1].split("<!-- /plan -->")[0].splitlines()
    config = DumpConfig(model="codellama-70b", data=THE_STACK, out=Path("x"), max_tokens=2_000_000_000)
    found = [f"    {line}" for line in plan_lines(estimate(config, "8xH100"))]
    engine = "        engine  "  # the one of this machine
    assert [x for x in shown if not x.startswith(engine)] == [x for x in found if not x.startswith(engine)]


def test_the_context_of_a_conversation_is_read_but_takes_no_records(tmp_path: Path) -> None:
    rows = [{"prompt": "q" * 300, "completion": "a" * 100}, {"prompt": "r" * 299, "completion": "b" * 99}]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--model", "smollm2-135m", "--data", str(tmp_path / "chats.jsonl"), "--decontaminate", "none"]
    found = plan(*arguments)
    assert found["tokens"] == round((400 + 398 + 2) / 3.6)  # a line feed before each response
    assert found["bytes"] == pytest.approx(found["tokens"] * 199 / 800 * 25, abs=25)
    assert "2 responses" in found["how"][0]
