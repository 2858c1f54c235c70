"""The layouts that can be imported: which columns a file has, and how a row of them is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError
from shards.format.chunk import Int64
from shards.imports.distillkit import CONFIG_NAME, Compression, load_compression
from shards.imports.parquet import Cells, NumberLists, column_names
from shards.imports.top_k import StoredRow

COLUMNS = {
    "tokens": "input_ids",
    "ids": "token_ids",
    "logprobs": "logprobs",
    "tail": "tail_mass",
    "mask": "attention_mask",
    "labels": "labels",
}
"""Default names of the columns of `top-k-parquet`. The last three may be missing."""
_OPTIONAL = ("tail", "mask", "labels")
_DEPTH = {"ids": 2, "logprobs": 2}
_COMPRESSED = {"ids": "bytepacked_indices", "logprobs": "compressed_logprobs"}
_LEGACY = {"packed_indices", "exact_values", "coeffs"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLayout:
    """How the rows of some files are read."""

    columns: dict[str, str]
    """Names of the columns that are read, by what they hold: keys of `COLUMNS`."""
    compression: Compression | None = None
    """How ids and log-probabilities are compressed, None if they are numbers."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the manifest records of the layout."""

    @property
    def depths(self) -> dict[str, int]:
        """Depth of the lists of each column."""
        return {name: _DEPTH.get(kind, 1) for kind, name in self.columns.items()}

    def row(self, where: str, cells: Cells) -> StoredRow:
        """Return a row from its cells.

        Raises:
            ShardError: If cells of a row differ in length, or hold other numbers than they should.
        """
        named = {kind: cells[name] for kind, name in self.columns.items()}
        tokens = _integers(named["tokens"], f"{where}, column {self.columns['tokens']}")
        mask = self._per_token("mask", named, len(tokens), where)
        labels = self._per_token("labels", named, len(tokens), where)
        if labels is not None:
            self._require_all_labels(labels, tokens, mask, where)
        counts, ids, logprobs = self._entries(named, where)
        tail = named["tail"].values.astype(np.float64) if "tail" in named else None
        if tail is not None and len(tail) != len(counts):
            raise self._other_length(where, "tail", len(tail), f"{len(counts)}, one for each list of ids")
        return StoredRow(
            where=where, columns=self.columns, tokens=tokens, counts=counts, ids=ids, logprobs=logprobs, tail=tail,
            mask=mask,
        )  # fmt: skip

    def _entries(self, named: Mapping[str, NumberLists], where: str) -> tuple[Int64, Int64, npt.NDArray[np.float64]]:
        """Return the number of entries of each list, and their ids and log-probabilities."""
        lists = {kind: named[kind].counts for kind in ("ids", "logprobs")}
        ids, logprobs = lists["ids"], lists["logprobs"]
        assert ids is not None
        assert logprobs is not None
        if len(ids) != len(logprobs):
            raise self._other_length(where, "logprobs", len(logprobs), f"{len(ids)} lists, as {self.columns['ids']}")
        if self.compression is not None:
            packed = {
                kind: self._packed(kind, named[kind], size, where)
                for kind, size in (("ids", self.compression.id_bytes), ("logprobs", self.compression.logprob_bytes))
            }
            counts = np.full(len(ids), self.compression.k, np.int64)
            return (
                counts,
                self.compression.ids(packed["ids"]).ravel(),
                self.compression.logprobs(packed["logprobs"]).ravel(),
            )
        if (differs := np.flatnonzero(ids != logprobs)).size:
            p = int(differs[0])
            raise ShardError(
                f"{where}, column {self.columns['logprobs']}, position {p}: found {logprobs[p]} values, expected "
                f"{ids[p]}, as in column {self.columns['ids']}"
            )
        entry_ids = _integers(named["ids"], f"{where}, column {self.columns['ids']}")
        return ids, entry_ids, named["logprobs"].values.astype(np.float64)

    def _packed(self, kind: str, cell: NumberLists, size: int, where: str) -> npt.NDArray[np.uint8]:
        assert cell.counts is not None
        if (differs := np.flatnonzero(cell.counts != size)).size:
            p = int(differs[0])
            raise ShardError(
                f"{where}, column {self.columns[kind]}, position {p}: found {cell.counts[p]} bytes, expected {size} "
                "under these settings; name those of the capture with --compression"
            )
        values = _integers(cell, f"{where}, column {self.columns[kind]}")
        if len(values) and not (values.min() >= 0 and values.max() <= 255):
            raise ShardError(f"{where}, column {self.columns[kind]}: found numbers outside 0 to 255, expected bytes")
        return values.astype(np.uint8).reshape(len(cell.counts), size)

    def _per_token(self, kind: str, named: Mapping[str, NumberLists], length: int, where: str) -> Int64 | None:
        if kind not in named:
            return None
        values = _integers(named[kind], f"{where}, column {self.columns[kind]}")
        if len(values) != length:
            raise self._other_length(where, kind, len(values), f"{length}, one for each token")
        return values

    def _require_all_labels(self, labels: Int64, tokens: Int64, mask: Int64 | None, where: str) -> None:
        differs = labels != tokens
        if mask is not None:
            differs &= mask != 0
        if differs.any():
            t = int(np.argmax(differs))
            raise ShardError(
                f"{where}, column {self.columns['labels']}, token {t}: found {labels[t]}, expected {tokens[t]}, the "
                "token itself: tokens without a loss are not imported; remove that column to learn every token"
            )

    def _other_length(self, where: str, kind: str, found: int, expected: str) -> ShardError:
        return ShardError(f"{where}, column {self.columns[kind]}: found {found} values, expected {expected}")


def top_k_layout(file: Path, columns: Mapping[str, str], compression: Path | None) -> SourceLayout:
    """Return the layout of files with columns of ids and log-probabilities.

    Args:
        file: One of the files.
        columns: Names that differ from `COLUMNS`.
        compression: Must be None.

    Raises:
        ShardError: If `columns` names something else.
    """
    if compression is not None:
        raise ShardError(f"--compression {compression}: found it with --from top-k-parquet, expected distillkit")
    if unknown := columns.keys() - COLUMNS.keys():
        raise ShardError(f"--columns: found {', '.join(sorted(unknown))}, expected some of {', '.join(COLUMNS)}")
    present = set(column_names(file)) | set(columns.values())
    names = {kind: columns.get(kind, name) for kind, name in COLUMNS.items()}
    return SourceLayout(
        columns={kind: name for kind, name in names.items() if kind not in _OPTIONAL or name in present},
        settings={"from": "top-k-parquet"},
    )


def distillkit_layout(file: Path, columns: Mapping[str, str], compression: Path | None) -> SourceLayout:
    """Return the layout of DistillKit's files: compressed, or with plain `token_ids` and `top_values`.

    Args:
        file: One of the files.
        columns: Must be empty: DistillKit's columns have fixed names.
        compression: File of the settings of the capture; by default `CONFIG_NAME` in the folder of `file`.

    Raises:
        ShardError: If the columns are not DistillKit's, or the settings are missing.
    """
    if columns:
        raise ShardError("--columns: found it with --from distillkit, expected top-k-parquet")
    present = set(column_names(file))
    names = {
        kind: COLUMNS[kind] for kind in ("tokens", "mask", "labels") if kind == "tokens" or COLUMNS[kind] in present
    }
    if present >= _LEGACY:
        raise ShardError(
            f"{file}: found the columns {', '.join(sorted(_LEGACY))} of DistillKit's legacy compression, which is not "
            "read: it does not say whether its values are logits; expected compressed_logprobs and bytepacked_indices"
        )
    if present >= set(_COMPRESSED.values()):
        settings_file = compression or file.parent / CONFIG_NAME
        loaded = load_compression(settings_file)
        return SourceLayout(
            columns={**names, **_COMPRESSED},
            compression=loaded,
            settings={"from": "distillkit", "d": loaded.d, "k": loaded.k, "exact_k": loaded.exact_k},
        )
    plain = {**names, "ids": COLUMNS["ids"], "logprobs": "top_values"}
    return SourceLayout(columns=plain, settings={"from": "distillkit"})


LAYOUTS: Mapping[str, Callable[[Path, Mapping[str, str], Path | None], SourceLayout]] = {
    "distillkit": distillkit_layout,
    "top-k-parquet": top_k_layout,
}
"""For each value of `--from`, the function from a file to its layout."""


def _integers(cell: NumberLists, where: str) -> Int64:
    values = cell.values
    if np.issubdtype(values.dtype, np.floating):
        raise ShardError(f"{where}: found numbers with a fraction ({values.dtype}), expected integers")
    if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
        raise ShardError(f"{where}: found {values.max()}, expected at most {np.iinfo(np.int64).max}")
    return values.astype(np.int64)
