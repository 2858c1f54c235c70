"""Settings of the records and of the engine, derived from the settings of a dump."""

from __future__ import annotations

from shards.format.schema import DOCUMENTS_VERSION, Layout
from teacher_dump.config import DumpConfig
from teacher_dump.engines.base import EngineConfig, resolve_dtype
from teacher_dump.engines.records import RecordSpec
from teacher_dump.errors import DumpError
from teacher_dump.model.teachers import LocalTeacher
from teacher_dump.relations.settings import relation_request

_WHITESPACE = (b" ", b"\n", b"\r", b"\t")


def record_layout(
    config: DumpConfig, model: LocalTeacher, *, version: int = DOCUMENTS_VERSION
) -> tuple[Layout, RecordSpec]:
    """Return the storage layout of the records, and their specification.

    Args:
        config: The settings of the dump.
        model: The teacher.
        version: Format version of the cache.

    Raises:
        DumpError: The threshold or a temperature is out of range, or the teacher has no such relations.
    """
    try:
        spec = RecordSpec(threshold=config.threshold, temperatures=config.temperatures)
    except ValueError as error:
        raise DumpError(str(error)) from None
    request = relation_request(config.relations, model.folder, seed=config.seed)
    layout = Layout(
        vocab_size=model.teacher.vocab_size,
        temperatures=spec.temperatures,
        threshold=spec.threshold,
        tail_floor=spec.tail_floor,
        version=version,
        relations=None if request is None else request.layout,
    )
    return layout, spec


def engine_config(config: DumpConfig, model: LocalTeacher, spec: RecordSpec) -> EngineConfig:
    """Return the settings of the engine that captures `spec` from `model`."""
    return EngineConfig(
        folder=model.folder,
        vocab_size=model.teacher.vocab_size,
        spec=spec,
        seed=config.seed,
        dtype=resolve_dtype(config.dtype).dtype,
        window_tokens=config.window_tokens,
        tensor_parallel_size=config.tensor_parallel_size,
        pipeline_parallel_size=config.pipeline_parallel_size,
        gpu_memory_utilization=config.gpu_memory_utilization,
        max_num_batched_tokens=config.max_num_batched_tokens,
        quantization=config.quantization,
        whitespace_ids=_whitespace_ids(model),
        relations=relation_request(config.relations, model.folder, seed=config.seed),
    )


def _whitespace_ids(model: LocalTeacher) -> tuple[int, ...]:
    """Return the token ids that begin with a whitespace byte or end a text, in ascending order."""
    return tuple(
        sorted(
            token_id
            for token_id, token in model.rules.token_bytes().items()
            if token_id < model.teacher.vocab_size and (token_id in model.end_tokens or token[:1] in _WHITESPACE)
        )
    )
