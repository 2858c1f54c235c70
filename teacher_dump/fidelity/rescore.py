"""Score rows of a finished cache again, and compare what is stored with the exact teacher.

Three things stand beside each other, so that a reader sees which difference is noise: the stored records against the
exact distribution (`teacher_dump.fidelity.reference`); two runs of the engine in other batches; the model's plain
forward in the
engine's type against the exact distribution, which is what rounding alone does. Neither the exact distribution nor the
rounding comes from the engine under check. `teacher_dump.fidelity.limits` says which differences are too large.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from shards.format.batch import Row
from shards.format.chunk import Chunk
from shards.format.side_files import seal_json
from shards.model_files.tokenizer import TokenizerRules
from shards.read import Cache
from shards.read import open as open_cache
from shards.reports.fidelity import CHECK_NAME
from teacher_dump.config import DumpConfig
from teacher_dump.engines.base import Engine, EngineConfig, engine_version
from teacher_dump.engines.records import Records, RecordSpec, draw_offsets, to_row
from teacher_dump.engines.registry import describe_engine, is_installed, select_engine, start_engine
from teacher_dump.engines.settings import engine_config
from teacher_dump.engines.sparsify import sparsify
from teacher_dump.errors import DumpError
from teacher_dump.fidelity.differences import Exact, Said, between, from_exact
from teacher_dump.fidelity.distortion import CURVE_TOKENS, Sums, Threshold, curve, losses, thresholds
from teacher_dump.fidelity.limits import limits
from teacher_dump.fidelity.reference import WIDER, Reference
from teacher_dump.fidelity.tally import Tally, add_all
from teacher_dump.model.teachers import Model, resolve
from teacher_dump.tasks.task import Task
from teacher_dump.tasks.windowing import Window

SPOT_ROWS = 16
SPOT_SHARE = 0.005
"""Rows, and share of the tokens, that a dump scores again to measure the engine's noise."""

Say = Callable[[str], None]


def check(config: DumpConfig, num_rows: int, *, say: Say = lambda line: None) -> dict[str, Any]:
    """Score `num_rows` rows of the cache at `config.out` again and return the result as JSON (docs/fidelity.md).

    `config.seed` chooses the rows; the draws' seed, the threshold and, unless they are given, engine and type are
    the cache's. Raises DumpError where the cache is of another teacher or tokenizer, ShardError where it is damaged.
    """
    if num_rows < 1:
        raise DumpError(f"--check {num_rows}: expected at least 1 row")
    cache = open_cache(config.out)
    model = resolve(config.model, revision=config.revision)
    refuse_others(cache, model)
    numbers, rows = sample(cache, num_rows, config.seed)
    name, known, spec = _as_dumped(cache, config, model, max(len(r.tokens) for r in rows))
    wanted = [Window(info=r.rows[0], tokens=np.array(r.tokens)) for r in rows]

    say(f"scoring {len(wanted)} of {cache.rows:,} rows again in {name}, twice")
    engine = start_engine(name, known)
    try:
        runs = two_runs(engine, wanted, spec)
    finally:
        engine.close()
    del engine
    say(f"and by the plain forward of transformers, in {known.dtype}")
    plain = _plainly(model, known, wanted)
    wider = WIDER.get(known.dtype, "float64")
    say(f"and exactly: transformers, in {wider}")
    found = _against_exact(cache, model, known, wider, numbers, wanted, rows, runs[0], plain, say)
    found["noise"] = _dicts(noise(cache, numbers, wanted, runs))
    found["limits"], found["mean_limits"] = limits(found, quantized=bool(known.quantization))
    found["problems"] = list(_problems(found))
    return {
        **_about(cache, numbers, wanted, describe_engine(name, known)),
        "reference": {"name": "transformers", "version": engine_version("transformers"), "dtype": wider},
        "seed": config.seed,
        **found,
        "sound": not found["problems"],
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A few rows that the engine of a dump scored twice more before it ended, for its noise."""

    wanted: tuple[Window, ...]
    runs: list[list[Row]]

    @classmethod
    def of(cls, engine: Engine, tasks: Sequence[Task], spec: RecordSpec) -> Spot:
        """Score the first rows of a dump that together are a small share of its tokens, at least one."""
        most = SPOT_SHARE * sum(t.num_tokens for t in tasks)
        some: list[Window] = []
        tokens = 0
        for window in (w for t in tasks for w in t.windows):
            tokens += len(window.tokens)
            if some and (tokens > most or len(some) == SPOT_ROWS):
                break
            some.append(window)
        return cls(wanted=tuple(some), runs=two_runs(engine, some, spec))

    def write(self, cache: Cache) -> None:
        """Write the noise beside the cache that came of the dump, where a check of it is looked for."""
        numbers = range(len(self.wanted))
        engine = {k: v for k, v in cache.manifest.engine.items() if k != "log_probs"}
        found = {
            **_about(cache, numbers, self.wanted, engine),
            "noise": _dicts(noise(cache, numbers, self.wanted, self.runs)),
        }
        write(cache, {k: v for k, v in found.items() if k != "row_numbers"})


def write(cache: Cache, found: dict[str, Any]) -> None:
    """Write a result beside its cache."""
    cache.store.put(CHECK_NAME, to_bytes(found))


def to_bytes(found: dict[str, Any]) -> bytes:
    """Return a result as the bytes of its file."""
    return seal_json(found)


def refuse_others(cache: Cache, model: Model) -> None:
    """Raise DumpError, naming both, unless the cache was made by this teacher with this tokenizer."""
    there, given = cache.manifest.teacher, model.teacher
    origin = " ".join(x for x in (there.repo, there.revision) if x)
    made = f"{cache.store.root} was made by {there.name}" + (f" ({origin})" if origin else "")
    if there.weights_sha256 != given.weights_sha256:
        raise DumpError(
            f"--model {given.name}: its weights have the digest {given.weights_sha256[:12]}, but {made}, whose weights "
            f"have {there.weights_sha256[:12]}; give --model the teacher that made the cache"
        )
    tokenizer = TokenizerRules.load(model.folder).fingerprint()
    if cache.manifest.tokenizer.fingerprint != tokenizer or cache.manifest.layout.vocab_size != given.vocab_size:
        raise DumpError(
            f"--model {given.name}: its tokenizer is {tokenizer[:12]} with {given.vocab_size:,} ids, but {made} with "
            f"{cache.manifest.tokenizer.fingerprint[:12]} and {cache.manifest.layout.vocab_size:,} ids; give --model "
            "the folder with the tokenizer that made the cache"
        )


def sample(cache: Cache, num_rows: int, seed: int) -> tuple[list[int], list[Chunk]]:
    """Return numbers and records of randomly chosen rows (all, where there are fewer), in order."""
    rng = np.random.default_rng((seed, int(cache.manifest_sha256[:15], 16)))
    numbers = sorted(rng.choice(cache.rows, min(num_rows, cache.rows), replace=False).tolist())
    rows: list[Chunk] = []
    first = 0
    for i in range(len(cache)):
        inside = [n - first for n in numbers if first <= n < first + cache.chunk_rows(i)]
        if inside:
            chunk = cache[i]
            rows += [chunk.row(r) for r in inside]
        first += cache.chunk_rows(i)
    return numbers, rows


def two_runs(engine: Engine, wanted: Sequence[Window], spec: RecordSpec) -> list[list[Row]]:
    """Return what the engine says of each row alone, and of all of them together in the opposite order."""
    alone = [to_row(w, packed, spec) for w in wanted for packed in engine.capture([w])]
    together = [*wanted[::-1], wanted[0]]  # never alone, even if it is one row
    other = [to_row(w, p, spec) for w, p in zip(together, engine.capture(together), strict=True)]
    return [alone, other[:-1][::-1]]


def _plainly(model: Model, known: EngineConfig, wanted: Sequence[Window]) -> list[Row]:
    """Return the records that the model's plain forward gives in the engine's type: what rounding alone does."""
    reference = Reference(
        model.folder, vocab_size=known.vocab_size, parameters=model.teacher.parameters, dtype=known.dtype
    )
    white = torch.from_numpy(known.whitespace_mask())
    rows = []
    for window in wanted:
        u = draw_offsets(window.info.document, window.info.window, known.seed, len(window.tokens) - 1)
        pieces: list[Records] = []
        first = 0
        for logits in reference.logits(window):
            last = first + len(logits)
            next_ids, u_P = (
                torch.from_numpy(window.tokens[first + 1 : last + 1]).long(),
                torch.from_numpy(u[first:last]),
            )
            pieces.append(
                sparsify(
                    logits,
                    next_ids.to(logits.device),
                    u_P.to(logits.device),
                    spec=known.spec,
                    whitespace_V=white.to(logits.device),
                )
            )
            first = last
        rows.append(to_row(window, np.concatenate([p.pack().cpu().numpy() for p in pieces]), known.spec))
    return rows


def noise(cache: Cache, numbers: Sequence[int], wanted: Sequence[Window], runs: list[list[Row]]) -> dict[str, Tally]:
    """Return how far two runs are apart, before anything is rounded."""
    tallies: dict[str, Tally] = {}
    for number, window, a, b in zip(numbers, wanted, *runs, strict=True):
        next_ids = window.tokens[1:].astype(np.int64)
        apart = between(Said.of_row(a), Said.of_row(b), next_ids=next_ids, layout=cache.manifest.layout)
        add_all(tallies, apart, number)
    return tallies


def _as_dumped(cache: Cache, config: DumpConfig, model: Model, longest: int) -> tuple[str, EngineConfig, RecordSpec]:
    """Return engine and settings that repeat what made the cache, where the caller did not ask for others."""
    manifest, layout = cache.manifest, cache.manifest.layout
    made_by = str(manifest.engine.get("name", "auto"))
    name = config.engine
    if name == "auto":
        name = made_by if is_installed(made_by) else select_engine("auto")
    spec = RecordSpec(threshold=layout.threshold, tail_floor=layout.tail_floor, temperatures=layout.temperatures)
    dtype = config.dtype if config.dtype != "auto" else str(manifest.engine.get("dtype", "auto"))
    known = engine_config(
        replace(
            config,
            seed=int(manifest.settings.get("seed", 0)),
            dtype=dtype,
            quantization=config.quantization or manifest.engine.get("quantization"),
            window_tokens=max(longest, int(manifest.settings.get("window_tokens", 8))),
        ),
        model,
        spec,
    )
    return select_engine(name), known, spec


def _against_exact(
    cache: Cache,
    model: Model,
    known: EngineConfig,
    wider: str,
    numbers: Sequence[int],
    wanted: Sequence[Window],
    rows: Sequence[Chunk],
    fresh: Sequence[Row],
    plain: Sequence[Row],
    say: Say,
) -> dict[str, Any]:
    layout = cache.manifest.layout
    reference = Reference(model.folder, vocab_size=layout.vocab_size, parameters=model.teacher.parameters, dtype=wider)
    white = torch.from_numpy(known.whitespace_mask())
    drawn_as_here = isinstance(cache.manifest.settings.get("seed"), int)
    tallies: dict[str, dict[str, Tally]] = {"stored": {}, "rounding": {}, "engine_error": {}}
    as_stored = Sums()
    points = [Threshold(c, layout) for c in thresholds(layout.threshold)]
    own = next(p for p in points if p.spec.threshold == layout.threshold)
    shape: list[dict[str, Any]] = []
    curve_tokens = 0
    for number, window, row, *others in zip(numbers, wanted, rows, plain, fresh, strict=True):
        say(f"row {number}: {len(window.tokens):,} tokens")
        sides = dict(zip(tallies, (Said.of_chunk(row), *map(Said.of_row, others)), strict=True))
        u = draw_offsets(window.info.document, window.info.window, known.seed, len(window.tokens) - 1)
        first = 0
        for logits in reference.logits(window):
            last = first + len(logits)
            next_ids = window.tokens[first + 1 : last + 1].astype(np.int64)
            exact = Exact.of(logits, next_ids, layout.temperatures, white)
            for side, said in sides.items():
                part = said.part(first, last)
                use = u[first:last] if side != "stored" or drawn_as_here else None
                apart = from_exact(part, exact, next_ids=next_ids, offsets=use, layout=layout)
                add_all(tallies[side], apart, number, first)
            as_stored.add(losses(sides["stored"].part(first, last), exact))
            piece = Window(info=window.info, tokens=window.tokens[first : last + 1])
            for point in [own] if shape else points:
                point.observe(piece, exact, logits, u[first:last], white)
            first = last
        curve_tokens += len(window.tokens)
        if not shape and (curve_tokens >= CURVE_TOKENS or number == numbers[-1]):
            shape = curve(points, own=layout.threshold, bytes_per_token=cache.bytes_per_token)
    bias, error = as_stored.draws_bias()
    return {
        **{name: _dicts(tally, with_place=name == "stored") for name, tally in tallies.items()},
        "fidelity": {
            **{k: float(f"{as_stored.mean(k):.4g}") for k in ("captured", "kl_stored", "kl_tail_dropped",
                                                              "kl_tail_even", "kl_tail_even_undrawn")},
            "kl_quantised": float(f"{own.sums.mean('kl_stored'):.4g}"),
            "draws_bias": float(f"{bias:.4g}"),
            "draws_bias_error": float(f"{error:.4g}"),
            "rms": float(f"{as_stored.rms:.4g}"),
        },
        "curve": shape,
    }  # fmt: skip


def _problems(found: dict[str, Any]) -> Iterable[str]:
    for name, limit in found["limits"].items():
        stored, fresh = found["stored"][name], found["engine_error"][name]
        if stored["max_steps"] > limit:
            yield (
                f"{name}: row {stored['row']} position {stored['position']} is {stored['max_steps']:g} steps from the "
                f"exact teacher, expected at most {limit:g}; {_blame(fresh['max_steps'] > limit)}"
            )
        elif stored["mean_steps"] > (limit := found["mean_limits"][name]):
            yield (
                f"{name}: {stored['mean_steps']:g} steps from the exact teacher on average, expected at most "
                f"{limit:g}; {_blame(fresh['mean_steps'] > limit)}"
            )


def _blame(fresh_is_off: bool) -> str:
    if fresh_is_off:
        return "a fresh run of the engine is as far off: the engine and the reference disagree"
    return "a fresh run of the engine is not: the records are not what these weights say"


def _about(cache: Cache, numbers: Sequence[int], wanted: Sequence[Window], engine: dict[str, Any]) -> dict[str, Any]:
    return {
        "manifest_sha256": cache.manifest_sha256,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": len(wanted),
        "of_rows": cache.rows,
        "positions": sum(len(w.tokens) - 1 for w in wanted),
        "row_numbers": list(numbers),
        "engine": engine,
    }


def _dicts(tallies: dict[str, Tally], *, with_place: bool = False) -> dict[str, dict[str, Any]]:
    return {name: tally.to_dict(with_place=with_place) for name, tally in tallies.items()}
