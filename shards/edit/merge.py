"""Merge several caches of one teacher into one.

Each row is kept once: a row that appears again with the same digest is dropped. The same window of a document with
other content is refused, because a student would see that text twice. So is a document that another cache withdrew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.edit.rewrite import (
    claim_output,
    fetch_files,
    fetch_shard,
    keep_rows,
    measure_and_finish,
    read_columns,
    rewrite,
)
from shards.errors import ShardError
from shards.format.manifest import Manifest, ShardEntry
from shards.read import Cache
from shards.storage.transfer import OnBytes, ignore_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeResult:
    """The result of a merge."""

    cache: Cache
    dropped_rows: int
    """Number of duplicate rows."""


def merge(caches: Sequence[Cache], out: Path, *, on_bytes: OnBytes = ignore_bytes) -> MergeResult:
    """Join caches of one teacher, in the given order.

    Args:
        caches: At least two caches.
        out: Directory of the result.
        on_bytes: Progress callback, which gets the bytes of the shards.

    Raises:
        ShardError: If the caches do not fit together. The message names the difference.
        StoreError: If a shard cannot be read or written.
    """
    if len(caches) < 2:
        raise ShardError("merge: found one cache, expected at least two")
    for other in caches[1:]:
        _require_compatible(caches[0], other)
    claim_output(out, "merge", [c.manifest_sha256 for c in caches])
    rows = _MergedRows({t.document: c.store.root for c in caches for t in c.manifest.tombstones})
    shards: list[ShardEntry] = []
    dropped = 0
    for cache in caches:
        for shard in cache.manifest.shards:
            renamed = replace(shard, name=f"{len(shards):06d}-{shard.rows_sha256[:12]}.arrow")
            source = fetch_shard(cache.store, shard, out / renamed.name, on_bytes=on_bytes)
            keep = rows.rows_to_keep(source, cache.store.root, f"{cache.store.root}/{shard.name}")
            if keep.all():
                shards.append(renamed)
                continue
            dropped += int((~keep).sum())
            entry = rewrite(source, renamed, keep_rows(keep), layout=cache.manifest.layout, out=out)
            if entry is None or entry.name != renamed.name:
                source.unlink()
            if entry is not None:
                shards.append(entry)
    fetch_files(caches[0], out)
    manifest = _joined_manifest([c.manifest for c in caches], shards, dropped)
    return MergeResult(cache=measure_and_finish(out, manifest), dropped_rows=dropped)


@dataclass(slots=True)
class _MergedRows:
    """The rows of the merged shards, to find duplicates and contradictions."""

    withdrawn: dict[str, str]
    """For the sha256 of each withdrawn document, the cache that withdrew it."""
    seen: dict[tuple[bytes, int], tuple[bytes, str]] = field(default_factory=dict)
    """For each window of a document, the digest of its row and the shard that it was found in."""

    def rows_to_keep(self, source: Path, root: str, where: str) -> npt.NDArray[np.bool_]:
        """Return whether each row of a shard is new, and remember the new rows.

        Args:
            source: Local copy of the shard.
            root: Its cache, for messages.
            where: The shard, for messages.

        Raises:
            ShardError: If a document was withdrawn, or a window has other content than in another shard.
        """
        table = read_columns(source, ("document", "window", "row_sha256"))
        keep = np.ones(table.num_rows, bool)
        for r, (document, window, digest) in enumerate(
            zip(*(table[n].to_pylist() for n in table.column_names), strict=True)
        ):
            if (withdrawn_from := self.withdrawn.get(document.hex())) is not None:
                raise ShardError(
                    f"{where}: found document {document.hex()[:12]}, which was withdrawn from {withdrawn_from}; "
                    f"withdraw it from {root} first"
                )
            key = (document, window)
            if key not in self.seen:
                self.seen[key] = (digest, where)
                continue
            first_digest, first_where = self.seen[key]
            if first_digest != digest:
                raise ShardError(
                    f"{where}: found window {window} of document {document.hex()[:12]}, expected a text that is in no "
                    f"other cache; {first_where} has that window with other content: keep one of the two"
                )
            keep[r] = False
        return keep


def _require_compatible(a: Cache, b: Cache) -> None:
    """Raise ShardError if the rows of two caches must not be in one cache."""
    facts_a, facts_b = _compared_facts(a.manifest), _compared_facts(b.manifest)
    if differences := [name for name in {**facts_a, **facts_b} if facts_a.get(name) != facts_b.get(name)]:
        name = differences[0]
        raise ShardError(
            f"{b.store.root}: found {', '.join(differences)} other than in {a.store.root} ({name}: "
            f"{str(facts_b.get(name))[:16]}, expected {str(facts_a.get(name))[:16]}); only caches of one teacher and "
            "one writer of responses, dumped with one layout, can be merged"
        )


def _compared_facts(manifest: Manifest) -> dict[str, Any]:
    writer = asdict(manifest.writer) if manifest.writer else {}
    return {
        "the format version": manifest.layout.version,
        "the teacher's weights": manifest.teacher.weights_sha256,
        "the tokenizer": manifest.tokenizer.fingerprint,
        "the prefix tokens": list(manifest.tokenizer.prefix_tokens),
        "the engine's dtype": manifest.engine.get("dtype"),
        "the meaning of log-probs": manifest.engine.get("log_probs"),
        **{f"the layout's {k}": v for k, v in {"tokens": "kept", **manifest.layout.to_dict()}.items()},
        **{f"the writer's {k}": v for k, v in writer.items() if k not in ("name", "revision")},
    }


def _joined_manifest(manifests: Sequence[Manifest], shards: Iterable[ShardEntry], dropped: int) -> Manifest:
    corpora = [m.corpus for m in manifests]
    counts: Counter[str] = Counter()
    for corpus in corpora:
        counts.update({k: v for k, v in corpus.items() if isinstance(v, int)})
    sources = dict.fromkeys(str(c.get("source")) for c in corpora)
    tombstones = {t.document: t for m in manifests for t in m.tombstones}
    step = {"step": "merge", "from": [m.sha256 for m in manifests], "dropped_rows": dropped}
    return replace(
        manifests[0],
        engine=joined_facts([m.engine for m in manifests]),
        corpus={**joined_facts(corpora), "source": " + ".join(sources), **dict(sorted(counts.items()))},
        settings=joined_facts([m.settings for m in manifests]),
        code=joined_facts([m.code for m in manifests]),
        shards=tuple(shards),
        tombstones=tuple(tombstones.values()),
        history=(*(h for m in manifests for h in m.history), step),
    )


def joined_facts(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts if all parts are equal, else those that agree, and all parts under `parts`."""
    if all(p == parts[0] for p in parts):
        return dict(parts[0])
    same = {k: v for k, v in parts[0].items() if all(p.get(k) == v for p in parts)}
    return {**same, "parts": list(parts)}
