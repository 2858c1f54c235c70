"""Score rows of a finished cache again, and compare the stored records with the exact distribution.

The result holds three comparisons, so that a reader can tell an error from noise: the stored records with the exact
distribution (`reference`); two runs of the engine in other batches (`noise`); and the model's plain forward in the
engine's dtype with the exact distribution, which is the effect of rounding alone. Neither the exact distribution nor
the rounding depends on the engine under test. `limits` decides which differences are too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shards.format.batch import Row
from shards.format.chunk import Chunk
from shards.read import Cache
from shards.read import open as open_cache
from teacher_dump.config import DumpConfig
from teacher_dump.engines.base import EngineConfig, engine_version
from teacher_dump.engines.records import RecordSpec
from teacher_dump.engines.registry import describe_engine, is_installed, select_engine, start_engine
from teacher_dump.engines.settings import engine_config
from teacher_dump.errors import DumpError
from teacher_dump.fidelity.check_file import header
from teacher_dump.fidelity.differences import tallies_to_dict
from teacher_dump.fidelity.exact_comparison import CheckedRow, ExactComparison
from teacher_dump.fidelity.limits import limits, problems
from teacher_dump.fidelity.noise import RepeatedRows
from teacher_dump.fidelity.reference import WIDER_DTYPE, Reference
from teacher_dump.model.teachers import LocalTeacher, resolve
from teacher_dump.relations.settings import RelationSettings
from teacher_dump.tasks.windowing import Window

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledRow:
    """A stored row, chosen at random."""

    number: int
    """Number of the row in the cache."""
    stored: Chunk
    """The row as a chunk of one."""

    @property
    def window(self) -> Window:
        """The row's tokens."""
        return Window(info=self.stored.rows[0], tokens=np.array(self.stored.tokens))


def check(config: DumpConfig, num_rows: int, *, log: Log = lambda line: None) -> dict[str, Any]:
    """Score rows of the cache at `config.out` again.

    `config.seed` chooses the rows. The seed of the draws and the threshold are the cache's; so are engine and dtype,
    unless the config sets them.

    Args:
        config: The settings.
        num_rows: Number of rows, at least 1.
        log: Receives a line for each step.

    Returns:
        The result as JSON (docs/fidelity.md).

    Raises:
        DumpError: The cache was made by another teacher or tokenizer.
        ShardError: The cache is damaged.
    """
    if num_rows < 1:
        raise DumpError(f"--check {num_rows}: expected at least 1 row")
    cache = open_cache(config.out)
    if cache.manifest.layout.absent:
        raise DumpError(
            f"--check: {config.out} was imported, and does not say how its teacher was run; expected a dump"
        )
    model = resolve(config.model, revision=config.revision)
    require_same_teacher(cache, model)
    if cache.manifest.layout.has_responses:
        ends = {*model.end_tokens, int(cache.manifest.corpus["end_of_turn"])}
        model = replace(model, end_tokens=tuple(sorted(ends)))
    rows = sample_rows(cache, num_rows, config.seed)
    engine, settings = _engine_of_cache(cache, config, model, max(len(row.stored.tokens) for row in rows))
    windows, numbers = [row.window for row in rows], [row.number for row in rows]

    log(f"scoring {len(rows)} of {cache.rows:,} rows again in {engine}, twice")
    repeated = _capture_twice(engine, settings, windows)
    statistics = _compare(cache, model, settings, rows, repeated, log)
    statistics["noise"] = tallies_to_dict(repeated.noise(numbers, cache.manifest.layout))
    largest, mean = limits(statistics, quantized=bool(settings.quantization))
    found = list(problems(statistics, largest, mean))
    return {
        **header(cache, windows, describe_engine(engine, settings), numbers=numbers),
        "reference": {
            "name": "transformers",
            "version": engine_version("transformers"),
            "dtype": _reference_dtype(settings),
        },
        "seed": config.seed,
        **statistics,
        "limits": largest,
        "mean_limits": mean,
        "problems": found,
        "sound": not found,
    }


def require_same_teacher(cache: Cache, model: LocalTeacher) -> None:
    """Check that a cache was made by a teacher with a tokenizer.

    Raises:
        DumpError: It was not; the message names both.
    """
    stored, given = cache.manifest.teacher, model.teacher
    origin = " ".join(x for x in (stored.repo, stored.revision) if x)
    made = f"{cache.store.root} was made by {stored.name}" + (f" ({origin})" if origin else "")
    if stored.weights_sha256 != given.weights_sha256:
        raise DumpError(
            f"--model {given.name}: its weights have the digest {given.weights_sha256[:12]}, but {made}, with weights "
            f"of digest {stored.weights_sha256[:12]}; give --model the teacher that made the cache"
        )
    tokenizer = model.rules.fingerprint()
    if cache.manifest.tokenizer.fingerprint != tokenizer or cache.manifest.layout.vocab_size != given.vocab_size:
        raise DumpError(
            f"--model {given.name}: its tokenizer is {tokenizer[:12]} with {given.vocab_size:,} ids, but {made} with "
            f"{cache.manifest.tokenizer.fingerprint[:12]} and {cache.manifest.layout.vocab_size:,} ids; give --model "
            "the folder with the tokenizer that made the cache"
        )


def sample_rows(cache: Cache, num_rows: int, seed: int) -> list[SampledRow]:
    """Return randomly chosen rows in order, all rows if the cache has fewer."""
    rng = np.random.default_rng((seed, int(cache.manifest_sha256[:15], 16)))
    numbers = sorted(rng.choice(cache.rows, min(num_rows, cache.rows), replace=False).tolist())
    rows: list[SampledRow] = []
    first = 0
    for i in range(len(cache)):
        inside = [n for n in numbers if first <= n < first + cache.chunk_rows(i)]
        if inside:
            chunk = cache[i]
            rows += [SampledRow(number=n, stored=chunk.row(n - first)) for n in inside]
        first += cache.chunk_rows(i)
    return rows


def _engine_of_cache(
    cache: Cache, config: DumpConfig, model: LocalTeacher, max_row_tokens: int
) -> tuple[str, EngineConfig]:
    """Return the engine and the settings that repeat the cache's records, where `config` does not set others."""
    manifest, layout = cache.manifest, cache.manifest.layout
    name = config.engine
    if name == "auto":
        cache_engine = str(manifest.engine.get("name", "auto"))
        name = cache_engine if is_installed(cache_engine) else "auto"
    settings = replace(
        config,
        seed=int(manifest.settings.get("seed", 0)),
        dtype=config.dtype if config.dtype != "auto" else str(manifest.engine.get("dtype", "auto")),
        quantization=config.quantization or manifest.engine.get("quantization"),
        window_tokens=max(max_row_tokens, int(manifest.settings.get("window_tokens", 8))),
        relations=RelationSettings(),
    )
    spec = RecordSpec(threshold=layout.threshold, tail_floor=layout.tail_floor, temperatures=layout.temperatures)
    return select_engine(name), engine_config(settings, model, spec)


def _capture_twice(name: str, settings: EngineConfig, windows: list[Window]) -> RepeatedRows:
    engine = start_engine(name, settings)
    try:
        return RepeatedRows.capture(engine, windows, settings.spec)
    finally:
        engine.close()


def _compare(
    cache: Cache,
    model: LocalTeacher,
    settings: EngineConfig,
    rows: list[SampledRow],
    repeated: RepeatedRows,
    log: Log,
) -> dict[str, Any]:
    """Compare the rows with the exact distribution, and return the result of `ExactComparison`."""
    log(f"and by the plain forward of transformers, in {settings.dtype}")
    plain = _plain_rows(model, settings, repeated.windows)
    dtype = _reference_dtype(settings)
    log(f"and exactly: transformers, in {dtype}")
    comparison = ExactComparison(cache, settings, _load_reference(model, settings, dtype))
    for i, row in enumerate(rows):
        log(f"row {row.number}: {len(row.stored.tokens):,} tokens")
        checked = CheckedRow(
            number=row.number,
            window=repeated.windows[i],
            stored=row.stored,
            plain=plain[i],
            engine=repeated.alone[i],
        )
        comparison.add(checked, is_last=i == len(rows) - 1)
    return comparison.result()


def _plain_rows(model: LocalTeacher, settings: EngineConfig, windows: tuple[Window, ...]) -> list[Row]:
    """Return the records that the model's plain forward gives in the engine's dtype."""
    reference = _load_reference(model, settings, settings.dtype)
    return [reference.record(window, settings) for window in windows]


def _load_reference(model: LocalTeacher, settings: EngineConfig, dtype: str) -> Reference:
    return Reference(model.folder, vocab_size=settings.vocab_size, parameters=model.teacher.parameters, dtype=dtype)


def _reference_dtype(settings: EngineConfig) -> str:
    return WIDER_DTYPE.get(settings.dtype, "float64")
