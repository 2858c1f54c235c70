"""Checks of a loaded engine, on a few positions, before it captures anything.

The engine is used only through `Engine.capture`, so that the checks cover everything between token ids and records:
attention, the head with its scales and caps, the order of the vocabulary, batching, sparsification, transport.

Every teacher: the records of a short prompt are the same twice, and records do not change with later tokens. A pooling
model is a use that an engine may implement with bidirectional attention, so causality is not implied by the name of the
architecture. The cost is three short prompts, at any size of teacher.

Teachers whose weights have at most `COMPARED_BYTES`: log-probability of the label, entropy and log Z_T agree with the
plain forward of the transformers model, which runs on the CPU in the engine's dtype before the engine is loaded.
Reading the weights of a large teacher twice would double the start of each worker, and may exceed the host's memory.
For large teachers, `docs/architectures.md` compares each architecture as a small random model, and `teacher-dump
--check` compares rows of the cache with the plain forward in higher precision. A comparison inside the worker, of the
pooler's logits with the model's `compute_logits`, was rejected: the pooler calls that method, so that the two sides
could never differ.

Quantised teachers are not compared: an engine's kernels and transformers round differently.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from shards.format.chunk import RowInfo
from teacher_dump.engines.base import Engine, EngineConfig
from teacher_dump.engines.blockwise_logits import PROBE_TOKENS, probe_ids
from teacher_dump.engines.records import Packed
from teacher_dump.errors import DumpError
from teacher_dump.model.causal_lm import forward_options, load
from teacher_dump.tasks.windowing import Window

COMPARED_BYTES = 4 * 2**30
"""Largest size of the weights files of a teacher that is compared with transformers."""
_MEMORY_SHARE = 0.25
"""Largest share of the available memory that the compared model may take."""
REPEAT_TOLERANCE = {"float32": 1e-4, "bfloat16": 1 / 64}
"""Largest difference of two runs of the same shape, in standard deviations of the label's log-probability."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 1 / 16}
"""Largest mean difference from transformers, in the same unit. A logit scale of 0.9 differs by 0.1 or more."""

_Scalars = npt.NDArray[np.float32]
"""float32 [P, 2 + Z]: log-probability of the label, entropy, log Z_T."""


class EngineProbe:
    """A short prompt, and what an engine must record for it."""

    def __init__(self, config: EngineConfig) -> None:
        """Choose the prompt, and compute its reference if the teacher is small and not quantised.

        Call it before the engine is loaded, so that the two copies of the teacher are never in memory together.

        Args:
            config: Settings of the engine.
        """
        import transformers

        model_config = transformers.AutoConfig.from_pretrained(config.folder)
        self._config = config
        self._ids_T = probe_ids(model_config, config.vocab_size, min(PROBE_TOKENS, config.window_tokens)).numpy()
        self._expected = _plain_scalars(config, self._ids_T) if _is_comparable(config) else None

    def check(self, engine: Engine) -> None:
        """Check the records of a loaded engine.

        Args:
            engine: An engine that was started with the settings of this probe.

        Raises:
            DumpError: The engine is not causal, not repeatable, or disagrees with the transformers model. The message
                holds the measured difference.
        """
        config, ids_T = self._config, self._ids_T
        half = len(ids_T) // 2
        changed_T = np.concatenate((ids_T[:half], ids_T[half:][::-1]))
        base, again, changed = (_scalars(engine, ids, config) for ids in (ids_T, ids_T, changed_T))
        limit = REPEAT_TOLERANCE[config.dtype]
        _require(_difference(base, again), limit, "two runs of one prompt differ", config.folder)
        # The label of the last unchanged position is the first changed token.
        what = f"the tokens from {half} on change the records before them, so the model is not causal in this engine"
        _require(_difference(base[: half - 1], changed[: half - 1]), limit, what, config.folder)
        if self._expected is not None:
            what = "the records differ from the plain forward of the transformers model"
            _require(_mean_difference(self._expected, base), TOLERANCE[config.dtype], what, config.folder)


def _require(difference: float, limit: float, what: str, folder: Path) -> None:
    if not difference <= limit:
        raise DumpError(
            f"{folder}: {what}, by {difference:.2g} standard deviations of the label's log-probability; expected "
            f"at most {limit:.2g}; use --engine transformers, or another teacher"
        )


def _scalars(engine: Engine, ids_T: npt.NDArray[np.int64], config: EngineConfig) -> _Scalars:
    """Return the scalars that an engine records for one window."""
    info = RowInfo(document="0" * 64, window=0, byte_start=0, byte_end=0, source="", path="", licence="")
    (packed,) = engine.capture([Window(info=info, tokens=ids_T.astype(np.int32))])
    return _recorded_scalars(packed, config)


def _recorded_scalars(packed: Packed, config: EngineConfig) -> _Scalars:
    scalars: _Scalars = np.ascontiguousarray(packed[:, config.spec.column_slices[-1]]).view(np.float32)
    return np.delete(scalars, 1, axis=1)  # the whitespace mass can be tiny, and its logarithm all rounding


def _plain_scalars(config: EngineConfig, ids_T: npt.NDArray[np.int64]) -> _Scalars | None:
    """Return the same scalars from the plain forward of the transformers model, None if it cannot be loaded."""
    try:
        model = load(config.folder, dtype=config.dtype)
    except DumpError:
        return None
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(ids_T)[None], **forward_options(model)).logits
    logp_PV = logits[0, :-1, : config.vocab_size].float().log_softmax(1)
    labels_P = torch.from_numpy(ids_T[1:])
    columns: Sequence[torch.Tensor] = [
        logp_PV.gather(1, labels_P[:, None])[:, 0],
        -(logp_PV.exp() * logp_PV).sum(1),
        *((logp_PV / t).logsumexp(1) for t in config.spec.temperatures),
    ]
    scalars: _Scalars = torch.stack(list(columns), 1).numpy()
    return scalars


def _difference(a: _Scalars, b: _Scalars) -> float:
    """Return the largest difference, in standard deviations of the label's log-probability in `a`."""
    return float(np.abs(a - b).max() / a[:, 0].std())


def _mean_difference(a: _Scalars, b: _Scalars) -> float:
    """Return the mean difference of the worst column, in standard deviations of the label's log-probability in `a`.

    A mean is compared across implementations: in bfloat16, single positions differ by several tenths of a nat.
    """
    return float(np.abs(a - b).mean(0).max() / a[:, 0].std())


def _is_comparable(config: EngineConfig) -> bool:
    """Return whether the teacher is small and not quantised."""
    import psutil

    if config.quantization or "quantization_config" in json.loads((config.folder / "config.json").read_bytes()):
        return False
    weights_bytes = sum(path.stat().st_size for path in config.folder.glob("*.safetensors"))
    memory_bytes: int = psutil.virtual_memory().available
    return weights_bytes <= min(COMPARED_BYTES, _MEMORY_SHARE * memory_bytes)
