"""Embeddings of programs by a tiny checkpoint, and a verifier that reads them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from evalkit.errors import EvalError
from evalkit.generation.checkpoint import find_checkpoint
from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.verifier.embedding import QUESTION, Embedder, batches, embedder_of, text_of
from evalkit.rerank.verifier.features import FEATURES
from evalkit.rerank.verifier.verifier import EmbeddingSource, SeenTasks, Verifier
from tests.evalkit.commands import call
from tests.evalkit.rerank.sample_runs import COMPLETIONS, TESTS, write_rows
from tests.evalkit.rerank.toy_evidence import evidence_of
from tests.evalkit.rerank.verifier.test_files import logistic

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def evidence_with(programs: tuple[str, ...], question: str = "Add two numbers.") -> TaskEvidence:
    count = len(programs)
    evidence = evidence_of(outputs=[[0]] * count, passed=[[]] * count, samples=list(range(count)))
    return dataclasses.replace(evidence, programs=programs, question=question)


def test_the_task_is_stated_once() -> None:
    assert text_of("Add.", "def f(): pass\n") == f'"""Add."""\ndef f(): pass{QUESTION}'
    assert text_of("def f():\n", "def f():\n    return 1\n") == f"def f():\n    return 1{QUESTION}"
    assert text_of("", "x = 1") == f"x = 1{QUESTION}"


def test_batches_hold_every_place_once_and_respect_their_size() -> None:
    lengths = [5, 9000, 4096, 1, 3000, 4000, 5]
    groups = batches(lengths)
    assert sorted(place for group in groups for place in group) == list(range(7))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[place] for place in group) <= 8192


@pytest.mark.slow
def test_embeddings_are_the_last_states_of_a_plain_forward_pass(checkpoint: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    programs = ("def f(a, b):\n    return a + b\n", "def f(a, b):\n    c = a - b\n    return c\n", "x")
    found = Embedder(find_checkpoint(str(checkpoint)))(evidence_with(programs))
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint).eval()
    assert found.shape == (3, model.config.hidden_size)
    for program, state in zip(programs, found, strict=True):
        ids = torch.tensor([tokenizer(text_of("Add two numbers.", program))["input_ids"]])
        with torch.inference_mode():
            expected = model(input_ids=ids).last_hidden_state[0, -1]
        assert state == pytest.approx(expected.numpy(), abs=1e-4)


def test_a_long_program_keeps_its_end(checkpoint: Path) -> None:
    embed = Embedder(find_checkpoint(str(checkpoint)))
    tail = "y = 2\n" * 3000
    states = embed(evidence_with(("a = 1\n" + tail, "b = 7\n" + tail, tail + "z = 3\n"), question=""))
    assert states[0] == pytest.approx(states[1], abs=1e-5)
    assert not np.allclose(states[0], states[2], atol=1e-3)


def verifier_with(source: EmbeddingSource | None) -> Verifier:
    return Verifier(model=logistic(), inputs=("tests",), embedding=source, trained_on=SeenTasks())


def test_only_the_checkpoint_of_the_training_is_accepted(checkpoint: Path) -> None:
    real = find_checkpoint(str(checkpoint))
    source = EmbeddingSource(checkpoint="elsewhere", sha256=real.sha256, dimension=128)
    embedder = embedder_of(verifier_with(source), str(checkpoint), "v")
    assert embedder is not None
    assert embedder.checkpoint.sha256 == real.sha256
    with pytest.raises(EvalError, match=r"v: the verifier reads embeddings of elsewhere .*, and none is named"):
        embedder_of(verifier_with(source), None, "v")
    with pytest.raises(EvalError, match=r"and .* is another one; name it with --verifier-model"):
        embedder_of(verifier_with(dataclasses.replace(source, sha256="0" * 64)), str(checkpoint), "v")
    with pytest.raises(EvalError, match="--verifier-model: v was trained without a checkpoint; leave the option out"):
        embedder_of(verifier_with(None), str(checkpoint), "v")
    assert embedder_of(verifier_with(None), None, "v") is None


@pytest.mark.slow
def test_a_linear_head_is_trained_stored_and_used(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    seen = {task_id: texts for task_id, texts in COMPLETIONS.items() if task_id != "HumanEval/53"}
    samples = write_rows(tmp_path / "seen.jsonl", seen | {"HumanEval/34": ["    return sorted(set(l))\n", "    x\n"]})
    new = write_rows(tmp_path / "new.jsonl", {"HumanEval/53": COMPLETIONS["HumanEval/53"]})
    tests = write_rows(tmp_path / "tests.jsonl", TESTS)
    folder = tmp_path / "v"
    done = call(
        "train-verifier", samples, "--tests", tests, "--tasks", "humaneval", "--out", folder, "--model", checkpoint
    )
    assert done.exit_code == 0, done.output
    content = json.loads((folder / "verifier.json").read_text())
    assert content["embedding"]["dimension"] == 128
    assert len(content["model"]["weight"]) == len(FEATURES) + 128
    assert "head(C=" in done.output
    refused = call("rerank", new, "--tests", tests, "--verifier", folder)
    assert "name it with --verifier-model" in refused.output
    used = call("rerank", new, "--tests", tests, "--verifier", folder, "--verifier-model", checkpoint)
    assert used.exit_code == 0, used.output
    result = json.loads((tmp_path / "new.rerank.json").read_text())
    assert result["verifier"]["embedding"] == str(checkpoint)
    assert "verifier" in result["scores"]
    usage = call("rerank", new, "--tests", tests, "--verifier-model", checkpoint)
    assert usage.exit_code == 2
    assert "has no effect without --verifier" in usage.output
