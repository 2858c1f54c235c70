"""How close is the student to the teacher on documents it never trained on?

Per held-out row: the sum of an estimate of KL(teacher || student) over its positions, the sum of -log of the student's
probability of the realised tokens (nats), how often both models' most probable tokens agree, and how well confidence
matches accuracy. The estimate of the
KL is `forward-kl` of `losses.py`: unbiased where draws carry the tail, a lower bound by less than the tail's mass times
its divergence where none do. Intervals: 95 %, percentile bootstrap over documents (windows of one document are not
independent), ratios of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk
from student_train.cross_tokenizer.fused_linear import CrossScores
from student_train.cross_tokenizer.targets import TokenizerPair
from student_train.data.hashing import is_held_out
from student_train.data.loader import BatchSpec, ChunkSource, batches_of
from student_train.data.packing import Batch, empty_batch
from student_train.losses.fused_linear import Scores
from student_train.training.distributed import World

_RESAMPLES = 2000
_BINS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class RowScore:
    """What was measured on one held-out row."""

    document: str
    """sha256 of the document, hex."""
    window: int
    """Number of the window."""
    tokens: int
    """Positions, each the prediction of one token of text."""
    bytes: int
    """UTF-8 bytes of the row's text."""
    kl_sum: float
    """Sum of the estimated KL to the teacher, nats; 0 for a student with another tokenizer."""
    nll_sum: float
    """Sum of -log probability of the realised tokens, nats."""
    top1_sum: int
    """Positions at which both models prefer the same token."""
    bins: list[list[float]]
    """For each of ten ranges of confidence (the student's largest probability): positions, sum of confidence, hits."""
    chunk_kl_sum: float | None = None
    """Sum over the row's chunks of the KL of "this chunk, then whitespace" or not; None for one tokenizer."""
    chunks: int | None = None
    """Number of chunks."""
    cell_kl_sum: float | None = None
    """Sum over shared boundaries of the KL on cells."""
    boundaries: int | None = None
    """Number of shared boundaries; `top1_sum` counts among them."""


def held_out_rows(cache: ChunkSource, *, fraction: float, max_tokens: int) -> list[Chunk]:
    """Return the first held-out rows of the cache, in its order, of at most `max_tokens` tokens (at least a row).

    Reads chunks until it has enough, so a large cache is not read whole.
    """
    found: list[Chunk] = []
    held = 0
    if fraction <= 0.0 or max_tokens <= 0:
        return found
    for i in range(len(cache)):
        chunk = cache[i]
        for r, info in enumerate(chunk.rows):
            if is_held_out(info.document, fraction=fraction):
                row = chunk.row(r)
                if found and held + len(row.tokens) > max_tokens:
                    return found
                found.append(row)
                held += len(row.tokens)
    return found


Scorer = Callable[[Batch], Scores | CrossScores]


def score(
    rows: list[Chunk],
    spec: BatchSpec,
    scorer: Scorer,
    *,
    world: World | None = None,
    tick: Callable[[int], None] = lambda tokens: None,
    tables: TokenizerPair | None = None,
) -> list[RowScore]:
    """Return the scores of `rows`, in their order. `tick` is told the tokens of each finished batch.

    Ranks share the rows out and all return all scores; a collective. A student with another tokenizer is measured by
    `tables` (those of `cells`); each of `rows` must be one that it can read.
    """
    world = world or World()
    spec = replace(spec, target_kind="linear", temperature=1.0, temperature_column=None, tables=tables)
    batches = batches_of(rows[world.rank :: world.size], spec)
    most = max(world.gather(len(batches)))
    mine = _score_batches(batches, scorer, tick)
    for _ in range(most - len(batches)):
        scorer(empty_batch(cross=tables is not None))
    parts = world.gather(mine)
    return [parts[i % world.size][i // world.size] for i in range(len(rows))]


def _score_batches(batches: tuple[Batch, ...], scorer: Scorer, tick: Callable[[int], None]) -> list[RowScore]:
    found: list[RowScore] = []
    for batch in batches:
        if batch.aligned is not None:
            found += _score_across(batch, scorer(batch))
            tick(batch.num_positions)
            continue
        kl_P, nll_P, same_P, confidence_P, hit_P = (t.double().cpu().numpy() for t in scorer(batch))
        start = 0
        for info, count in zip(batch.rows, batch.row_positions, strict=True):
            here = slice(start, start + count)
            start += count
            found.append(
                RowScore(
                    document=info.document,
                    window=info.window,
                    tokens=count,
                    bytes=info.byte_end - info.byte_start,
                    kl_sum=float(kl_P[here].sum()),
                    nll_sum=float(nll_P[here].sum()),
                    top1_sum=int(same_P[here].sum()),
                    bins=_bins(confidence_P[here], hit_P[here]),
                )
            )
        tick(batch.num_positions)
    return found


def _score_across(batch: Batch, scores: Scores | CrossScores) -> list[RowScore]:
    assert batch.aligned is not None
    assert isinstance(scores, CrossScores)
    nll_P, confidence_P, hit_P, chunk_C, cell_B, same_B = (t.double().cpu().numpy() for t in scores)
    found, start = [], 0
    for r, (info, count) in enumerate(zip(batch.rows, batch.row_positions, strict=True)):
        here = slice(start, start + count)
        start += count
        mine_W, mine_B = batch.aligned.row_W == r, batch.aligned.row_B == r
        found.append(
            RowScore(
                document=info.document,
                window=info.window,
                tokens=count,
                bytes=int(batch.aligned.bytes_R[r]),
                kl_sum=0.0,
                nll_sum=float(nll_P[here].sum()),
                top1_sum=int(same_B[mine_B].sum()),
                bins=_bins(confidence_P[here], hit_P[here]),
                chunk_kl_sum=float(chunk_C[mine_W].sum()),
                chunks=int(mine_W.sum()),
                cell_kl_sum=float(cell_B[mine_B].sum()),
                boundaries=int(mine_B.sum()),
            )
        )
    return found


def _bins(confidence_P: npt.NDArray[np.float64], hit_P: npt.NDArray[np.float64]) -> list[list[float]]:
    # A broken model has confidence NaN; training, not evaluation, refuses it, naming rows.
    place = np.clip((np.nan_to_num(confidence_P) * _BINS).astype(np.int64), 0, _BINS - 1)
    sums = [np.bincount(place, weights=w, minlength=_BINS) for w in (np.ones_like(hit_P), confidence_P, hit_P)]
    return [[float(x) for x in row] for row in np.stack(sums, axis=1)]


def summary(scores: list[RowScore]) -> dict[str, dict[str, float]] | None:
    """Return mean and 95 % interval of KL (nats per token), bits per byte, agreement and ECE; None without rows.

    Across tokenizers the KL is that of chunks (nats per chunk) and of cells (nats per shared boundary), and agreement
    counts shared boundaries at which both models' preferred tokens lie in one cell.
    """
    if not scores:
        return None
    documents = sorted({s.document for s in scores})
    place = {document: i for i, document in enumerate(documents)}
    sums = np.zeros((len(documents), 9))
    bins = np.zeros((len(documents), _BINS, 3))
    for s in scores:
        across = (s.chunk_kl_sum or 0.0, s.chunks or 0, s.cell_kl_sum or 0.0, s.boundaries or 0)
        sums[place[s.document]] += (s.kl_sum, s.nll_sum / math.log(2.0), s.top1_sum, s.tokens, s.bytes, *across)
        bins[place[s.document]] += np.asarray(s.bins)
    # A fixed seed: the same rows give the same interval.
    picks = np.random.RandomState(0).randint(len(documents), size=(_RESAMPLES, len(documents)))
    resampled = sums[picks].sum(axis=1)
    total = sums.sum(axis=0)
    if scores[0].chunks is None:
        compared = {"kl": _interval(total, resampled, 0, 3)}
    else:
        compared = {"chunk_kl": _interval(total, resampled, 5, 6), "cell_kl": _interval(total, resampled, 7, 8)}
    return {
        **compared,
        "bits_per_byte": _interval(total, resampled, 1, 4),
        "top1_agreement": _interval(total, resampled, 2, 3 if scores[0].chunks is None else 8),
        "calibration_error": _calibration(bins, picks),
    }


def _calibration(bins: npt.NDArray[np.float64], picks: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the expected calibration error: mean |confidence - hits| over bins, weighted by their positions.

    Biased upwards where bins are few: compare models on the same rows, not with zero.
    """

    def error(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = np.abs(sums[..., 1] - sums[..., 2]).sum(-1) / sums[..., 0].sum(-1)
        return found

    low, high = np.percentile(error(bins[picks].sum(axis=1)), [2.5, 97.5])
    return {"mean": float(error(bins.sum(axis=0))), "low": float(low), "high": float(high)}


def _interval(
    total: npt.NDArray[np.float64], resampled: npt.NDArray[np.float64], above: int, below: int
) -> dict[str, float]:
    low, high = np.percentile(resampled[:, above] / resampled[:, below], [2.5, 97.5])
    return {"mean": float(total[above] / total[below]), "low": float(low), "high": float(high)}


def lines(after: Iterable[RowScore], before: Iterable[RowScore]) -> list[dict[str, object]]:
    """Return the lines of held_out.jsonl: each row after training, with the sums before."""
    found = []
    for now, then in zip(after, before, strict=True):
        measures = ("kl_sum", "nll_sum", "top1_sum")
        if now.chunks is not None:
            measures = ("chunk_kl_sum", "cell_kl_sum", "nll_sum", "top1_sum")
        earlier = {f"{name}_before": getattr(then, name) for name in measures}
        row = {name: value for name, value in asdict(now).items() if value is not None and name != "bins"}
        if now.chunks is not None:
            del row["kl_sum"]
        found.append({**row, **earlier})
    return found
