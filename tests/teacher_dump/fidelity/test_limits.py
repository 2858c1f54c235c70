"""Tests of the limits: errors in all records are found, also if the check's own engine has the same error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from teacher_dump.engines.blockwise_logits import BlockwiseLogits
from teacher_dump.engines.hf import TransformersEngine
from teacher_dump.fidelity.limits import CEILING, MEAN_CEILING, limits
from teacher_dump.fidelity.rescore import check
from teacher_dump.run.dump import dump
from tests.teacher_dump.helpers import dump_config

Piece = Callable[[int, int, int], torch.Tensor]


def scaled(piece: Piece) -> Piece:
    return lambda row, start, stop: piece(row, start, stop) * 0.9


def soft_capped(piece: Piece) -> Piece:
    return lambda row, start, stop: 30 * torch.tanh(piece(row, start, stop) / 30)


def shifted(piece: Piece) -> Piece:
    """A position's logits are those of the next one."""
    return lambda row, start, stop: piece(row, start + 1, stop + 1)


WRONG = {"a logit scale of 0.9": scaled, "a soft cap of 30": soft_capped, "a shift by one": shifted}


def broken(patched: pytest.MonkeyPatch, change: Callable[[Piece], Piece]) -> None:
    """Make the transformers engine wrong; the plain forward of the model stays as it is."""
    forward = BlockwiseLogits.forward

    def unchecked(self: BlockwiseLogits, window_tokens: int) -> None:  # the probe at load would refuse it
        self._body, self.is_ragged = self._model.base_model, False

    patched.setattr(BlockwiseLogits, "_check", unchecked)
    patched.setattr(BlockwiseLogits, "forward", lambda self, ids: change(forward(self, ids)))


@pytest.fixture(params=["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def settings(request: Any, tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> Any:
    torch.set_num_threads(1)
    return dump_config(tiny_teacher, corpus_folder, tmp_path / "cache", dtype=request.param, max_tokens=300)


def test_honest_records_are_sound(settings: Any) -> None:
    dump(settings)
    found = check(settings, 6)
    assert found["sound"], found["problems"]
    assert all(found["limits"][kind] <= CEILING[kind] for kind in found["stored"])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_records_are_found(settings: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        broken(patched, WRONG[name])
        dump(settings)
    found = check(settings, 6)
    assert {p.split(":")[0] for p in found["problems"]} >= {"log Z"}
    assert all("the records do not come from these weights" in p for p in found["problems"] if p.startswith("log Z"))


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_wrong_records_are_found_by_an_engine_that_is_as_wrong(
    settings: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, WRONG[name])
    dump(settings)
    found = check(settings, 6)
    assert {p.split(":")[0] for p in found["problems"]} >= {"log Z"}
    assert all("the engine and the reference disagree" in p for p in found["problems"] if p.startswith("log Z"))


def test_two_rows_that_changed_places_are_found(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = TransformersEngine.capture

    def swapped(self: TransformersEngine, windows: Sequence[Any]) -> Iterator[Any]:
        packed = list(capture(self, windows))
        a, b = next(
            (i, j) for i in range(len(packed)) for j in range(i + 1, len(packed)) if len(packed[i]) == len(packed[j])
        )
        packed[a], packed[b] = packed[b], packed[a]
        yield from packed

    with monkeypatch.context() as patched:
        patched.setattr(TransformersEngine, "capture", swapped)
        dump(settings)
    found = check(settings, 1000)
    assert not found["sound"]
    assert {"head ids", "log Z"} <= {p.split(":")[0] for p in found["problems"]}


def statistics(**steps: float) -> dict[str, Any]:
    kinds = {kind: {"max_steps": 0.5, "mean_steps": 0.2} for kind in CEILING}
    return {
        side: {k: {n: v * steps.get(side, 1.0) for n, v in values.items()} for k, values in kinds.items()}
        for side in ("stored", "rounding", "noise", "engine_error")
    }


def test_no_noise_excuses_more_than_the_ceiling() -> None:
    largest, mean = limits(statistics(noise=1e5), quantized=False)
    assert (largest, mean) == (CEILING, MEAN_CEILING)
    largest, mean = limits(statistics(engine_error=1e5), quantized=True)
    assert (largest, mean) == (CEILING, MEAN_CEILING)


def test_the_engines_own_error_excuses_nothing_unless_it_quantised_the_weights() -> None:
    assert limits(statistics(engine_error=1e5), quantized=False) == limits(statistics(), quantized=False)
