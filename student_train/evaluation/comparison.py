"""What an evaluation says about a model, or about two models on the same rows, as JSON can hold it.

Keys: `models` (one or two entries), `differences` and `kinds_differences` (first model minus second, paired),
`furthest` (the rows in which the model is furthest from the teacher, or two models are from each other, with their
text; see `_distances`), and `rows` (the sums of each row). Intervals: 95 % over documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk
from student_train.evaluation.held_out import summary
from student_train.evaluation.intervals import DocumentSums, Interval, known_figures
from student_train.evaluation.model_scores import ModelScores, PositionScores
from student_train.evaluation.token_kinds import KINDS
from student_train.objectives.row_score import RowScore

NUM_FURTHEST = 12
"""Rows whose text is in the record."""

Float64 = npt.NDArray[np.float64]
_Key = tuple[str, int]


def comparison(
    models: Sequence[ModelScores], rows: Sequence[Chunk], *, table: dict[int, bytes], kinds_V: npt.NDArray[np.int8]
) -> dict[str, Any]:
    """Return the record of one model, or of two on the rows that both read.

    Args:
        models: One or two models, scored on `rows`.
        rows: Rows of the cache, as chunks of one row each.
        table: Bytes of each of the teacher's tokens.
        kinds_V: Index in `KINDS` of each of them.
    """
    keys = _common_rows(models)
    chosen = [_Chosen(model, keys) for model in models]
    sums = DocumentSums([document for document, _ in keys])
    record: dict[str, Any] = {
        "on": {
            "rows": len(keys),
            "documents": sums.num_documents,
            "tokens": sum(row.tokens for row in chosen[0].rows),
            "bytes": sum(row.bytes for row in chosen[0].rows),
        },
        "models": [_model_record(each, sums, kinds_V) for each in chosen],
    }
    if len(chosen) == 2:
        record |= _differences(chosen[0], chosen[1], sums, kinds_V)
    by_key = {(row.rows[0].document, row.rows[0].window): row for row in rows}
    record["furthest"] = _furthest(chosen, keys, by_key, table)
    record["rows"] = [_row_record([each.rows[i] for each in chosen], by_key[key]) for i, key in enumerate(keys)]
    return record


class _Chosen:
    """The scores of a model on the rows of a comparison."""

    def __init__(self, model: ModelScores, keys: Sequence[_Key]) -> None:
        self.model = model
        index = {(row.document, row.window): i for i, row in enumerate(model.rows)}
        self.rows = [model.rows[index[key]] for key in keys]
        self.positions = [model.positions[index[key]] for key in keys] if model.positions else []


def _common_rows(models: Sequence[ModelScores]) -> list[_Key]:
    """Return the rows that all models read, in the order of the first."""
    keys = [(row.document, row.window) for row in models[0].rows]
    for model in models[1:]:
        others = {(row.document, row.window) for row in model.rows}
        keys = [key for key in keys if key in others]
    return keys


def _model_record(chosen: _Chosen, sums: DocumentSums, kinds_V: npt.NDArray[np.int8]) -> dict[str, Any]:
    model = chosen.model
    record = {
        "source": model.source,
        "parameters": model.parameters,
        "tokenizer": "the teacher's" if model.tokenizer is None else model.tokenizer,
        "left_out": model.left_out,
        "measures": summary(chosen.rows, model.measures) or {},
    }
    if chosen.positions:
        kinds = _KindSums(chosen.positions, kinds_V)
        record["kinds"] = kinds.named(sums.ratios(kinds.kl, kinds.tokens))
    return record


def _differences(first: _Chosen, second: _Chosen, sums: DocumentSums, kinds_V: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Return paired differences of what both models measure.

    Top-1 agreement is over tokens or over shared boundaries, so the definitions count, not the names.
    """
    measures = [measure for measure in first.model.measures if measure in second.model.measures]
    sides = []
    for chosen in (first, second):
        above = [[getattr(row, m.numerator) / m.unit for m in measures] for row in chosen.rows]
        below = [[getattr(row, m.denominator) for m in measures] for row in chosen.rows]
        sides.append((above, below))
    intervals = sums.ratio_differences(sides[0], sides[1])
    figures = known_figures(dict(zip((m.name for m in measures), intervals, strict=True)))
    record: dict[str, Any] = {"differences": figures}
    if first.positions and second.positions:
        ours, others = (_KindSums(chosen.positions, kinds_V) for chosen in (first, second))
        intervals = sums.ratio_differences((ours.kl, ours.tokens), (others.kl, others.tokens))
        record["kinds_differences"] = ours.named(intervals)
    return record


class _KindSums:
    """Sums of each row over the positions of each kind of token that occurs."""

    def __init__(self, positions: Sequence[PositionScores], kinds_V: npt.NDArray[np.int8]) -> None:
        kinds = [kinds_V[scores.labels_P] for scores in positions]
        kl = [np.bincount(k, weights=s.kl_P, minlength=len(KINDS)) for k, s in zip(kinds, positions, strict=True)]
        tokens = np.stack([np.bincount(k, minlength=len(KINDS)) for k in kinds]).astype(np.float64)
        occur = np.flatnonzero(tokens.sum(axis=0))
        self.names = [KINDS[i] for i in occur]
        self.kl: Float64 = np.stack(kl)[:, occur].astype(np.float64)
        self.tokens: Float64 = tokens[:, occur]

    def named(self, intervals: list[Interval]) -> dict[str, dict[str, float]]:
        """Return the interval and the number of tokens of each kind."""
        counts = self.tokens.sum(axis=0)
        named = zip(self.names, intervals, counts, strict=True)
        return {name: {**interval, "tokens": int(count)} for name, interval, count in named}


def _furthest(
    chosen: Sequence[_Chosen], keys: Sequence[_Key], by_key: dict[_Key, Chunk], table: dict[int, bytes]
) -> list[dict[str, Any]]:
    """Return the rows with the largest distance, or the largest difference of two; KL by token where it is known."""
    unit, values = _distances(chosen)
    size = values[0] if len(chosen) == 1 else np.abs(values[0] - values[1])
    by_token = all(each.positions for each in chosen)
    records = []
    for i in np.argsort(-size, kind="stable")[:NUM_FURTHEST]:
        row = by_key[keys[i]]
        labels = chosen[0].positions[i].labels_P if by_token else row.tokens[row.rows[0].context :]
        records.append(
            {
                "document": row.rows[0].document,
                "window": row.rows[0].window,
                "source": row.rows[0].source,
                "path": row.rows[0].path,
                "unit": unit,
                "values": [float(each[i]) for each in values],
                "pieces": [table.get(int(label), b"").decode("utf-8", "replace") for label in labels],
                "piece_kl": [[round(float(x), 4) for x in each.positions[i].kl_P] for each in chosen if by_token],
            }
        )
    return records


def _distances(chosen: Sequence[_Chosen]) -> tuple[str, Float64]:
    """Return what all models have in common as a distance from the teacher in each row: its unit, and [models, rows].

    It is the KL by token, or by aligned span where no model has the teacher's tokenizer. Where one of two has it, both
    have bits per byte only: how far each is from the text.
    """
    rows = [each.rows for each in chosen]
    if all(each.positions for each in chosen):
        return "nats per token", np.array([[row.kl_sum / row.tokens for row in each] for each in rows])
    if not any(each.positions for each in chosen):
        spans = [[(row.chunk_kl_sum or 0.0) / max(1, row.chunks or 0) for row in each] for each in rows]
        return "nats per aligned span", np.array(spans)
    return "bits per byte", np.array([[row.nll_sum / math.log(2) / max(1, row.bytes) for row in each] for each in rows])


def _row_record(scores: Sequence[RowScore], row: Chunk) -> dict[str, Any]:
    """Return the sums of a row, those of each model in a list."""
    fields = ("kl_sum", "nll_sum", "top1_sum", "chunk_kl_sum", "chunks", "cell_kl_sum", "boundaries")
    sums = {name: [getattr(score, name) for score in scores] for name in fields}
    return {
        "document": scores[0].document,
        "window": scores[0].window,
        "path": row.rows[0].path,
        "tokens": [score.tokens for score in scores],
        "bytes": scores[0].bytes,
        **{name: values for name, values in sums.items() if any(value is not None for value in values)},
    }
