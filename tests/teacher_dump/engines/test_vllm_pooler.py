"""Tests of the pooler without an engine: parts of prompts, contexts, and the logits that are computed for them."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from teacher_dump.engines.records import RecordSpec

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")

VOCAB, WIDTH = 96, 16
SPEC = RecordSpec()
SETTINGS = {"spec": dataclasses.asdict(SPEC), "vocab_size": VOCAB, "whitespace_ids": [3, 4]}


class Head:
    """A model's output projection that counts the positions it is asked for."""

    def __init__(self) -> None:
        self._weight_DV = torch.randn(WIDTH, VOCAB + 8, generator=torch.Generator().manual_seed(0))
        self.num_positions = 0

    def compute_logits(self, hidden_PD: torch.Tensor) -> torch.Tensor:
        self.num_positions += len(hidden_PD)
        return hidden_PD @ self._weight_DV


class State:
    """vLLM's state of a request between the steps."""

    def __init__(self) -> None:
        self.hidden_states_cache: list[torch.Tensor] = []

    def clean(self) -> None:
        self.hidden_states_cache.clear()


@dataclasses.dataclass
class Step:
    """vLLM's description of one engine step, as far as the pooler reads it."""

    numbers: list[int]
    """Windows of the requests."""
    prompts: list[torch.Tensor]
    contexts: list[int]
    pooling_states: list[State]
    seen: list[int]
    """Tokens of each prompt that are computed after this step."""
    counts: list[int]

    @property
    def pooling_params(self) -> list[Any]:
        requests = zip(self.numbers, self.contexts, strict=True)
        keys = [{"document": "d", "window": number, "seed": 0, "context": context} for number, context in requests]
        return [type("Params", (), {"extra_kwargs": key}) for key in keys]

    def get_prompt_token_ids_cpu(self) -> list[torch.Tensor]:
        return self.prompts

    def get_pooling_cursor(self) -> Any:
        finished = [seen == len(prompt) for seen, prompt in zip(self.seen, self.prompts, strict=True)]
        values = {
            "num_scheduled_tokens_cpu": torch.tensor(self.counts),
            "seq_lens_cpu": torch.tensor(self.seen),
            "get_finished_mask": lambda _: finished,
        }
        return type("Cursor", (), values)()


def pooled(contexts: list[int], steps: list[list[int]]) -> tuple[list[np.ndarray[Any, Any]], int]:
    """Return the records of three prompts, computed in steps of so many tokens each, and the number of logits."""
    from teacher_dump.engines.vllm_pooler import RecordPooler

    generator = torch.Generator().manual_seed(1)
    lengths = [sum(counts) for counts in zip(*steps, strict=True)]
    prompts = [torch.randint(VOCAB, (length,), generator=generator) for length in lengths]
    hidden = [torch.randn(length, WIDTH, generator=generator) for length in lengths]
    states = [State() for _ in lengths]
    head = Head()
    pooler = RecordPooler(head, SETTINGS, task="t")
    records: dict[int, np.ndarray[Any, Any]] = {}
    seen = [0] * len(lengths)
    for counts in steps:
        active = [i for i, count in enumerate(counts) if count]
        parts = [hidden[i][seen[i] : seen[i] + counts[i]] for i in active]
        seen = [a + b for a, b in zip(seen, counts, strict=True)]
        step = Step(
            numbers=active,
            prompts=[prompts[i] for i in active],
            contexts=[contexts[i] for i in active],
            pooling_states=[states[i] for i in active],
            seen=[seen[i] for i in active],
            counts=[counts[i] for i in active],
        )
        for i, output in zip(active, pooler.forward(torch.cat(parts), step), strict=True):
            if output is not None:
                records[i] = output.numpy()
    return [records[i] for i in range(len(lengths))], head.num_positions


def _floats(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(bits).view(np.float32)


@pytest.mark.parametrize(
    "steps", [[[9, 12, 5]], [[9, 4, 0], [0, 8, 5]], [[3, 0, 1], [3, 6, 1], [3, 6, 3]], [[1, 1, 1], [8, 11, 4]]]
)
@pytest.mark.slow
def test_the_records_of_a_response_are_the_last_ones_of_its_tokens(steps: list[list[int]]) -> None:
    whole, _ = pooled([1, 1, 1], steps)
    contexts = [4, 12, 1]
    responses, num_positions = pooled(contexts, steps)
    for a, b, context, length in zip(whole, responses, contexts, (9, 12, 5), strict=True):
        assert (len(a), len(b)) == (length - 1, length - context)
        heads, probs, _, scalars = SPEC.column_slices  # the draws begin anew at the first position
        assert np.array_equal(a[context - 1 :, heads], b[:, heads])
        for columns in (probs, scalars):
            assert _floats(a[context - 1 :, columns]) == pytest.approx(_floats(b[:, columns]), abs=1e-5)
    # One logit row for each position, and one for the last token of each prompt.
    assert num_positions == sum(length - context + 1 for length, context in zip((9, 12, 5), contexts, strict=True))


@pytest.mark.slow
def test_the_draws_of_a_response_do_not_depend_on_the_parts() -> None:
    one, _ = pooled([4, 3, 2], [[9, 12, 5]])
    for steps in ([[9, 4, 0], [0, 8, 5]], [[3, 0, 1], [3, 6, 1], [3, 6, 3]]):
        for a, b in zip(one, pooled([4, 3, 2], steps)[0], strict=True):
            for columns in (SPEC.column_slices[0], SPEC.column_slices[2]):
                assert np.array_equal(a[:, columns], b[:, columns])
